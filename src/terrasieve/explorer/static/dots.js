"use strict";
// A layer of deck.gl: dots of one radius, each a point of WebGL. The library's own ScatterplotLayer draws each as an instance
// of a square, and renderers in software go through instances one by one: with 100,000 of them a frame takes seconds.

const DOTS_VERTEX = `#version 300 es
#define SHADER_NAME dots-layer-vertex-shader
in vec3 positions;
in vec3 positions64Low;
in vec4 colors;
out vec4 vColor;

void main(void) {
  geometry.worldPosition = positions;
  geometry.pickingColor = picking_getPickingColorFromIndex(float(gl_VertexID));
  gl_Position = project_position_to_clipspace(positions, positions64Low, vec3(0.0), geometry.position);
  DECKGL_FILTER_GL_POSITION(gl_Position, geometry);
  gl_PointSize = 2.0 * float(DOTS_RADIUS) * project.devicePixelRatio;
  vColor = colors;
  DECKGL_FILTER_COLOR(vColor, geometry);
}
`;

const DOTS_FRAGMENT = `#version 300 es
#define SHADER_NAME dots-layer-fragment-shader
precision highp float;
in vec4 vColor;
out vec4 fragColor;

void main(void) {
  geometry.uv = 2.0 * gl_PointCoord - 1.0;
  if (dot(geometry.uv, geometry.uv) > 1.0) discard;
  fragColor = vColor;
  DECKGL_FILTER_COLOR(fragColor, geometry);
}
`;

// Takes `getPosition`, `getFillColor`, both best as binary attributes, `radius` in pixels, which stays as it is, and `most`:
// how many are drawn, the first of the data.
class DotsLayer extends deck.Layer {
  static layerName = "DotsLayer";
  static defaultProps = {
    radius: 3,
    most: Infinity,
    getPosition: { type: "accessor", value: (one) => one.position },
    getFillColor: { type: "accessor", value: [0, 0, 0, 255] },
  };

  getShaders() {
    const modules = [deck.project32, deck.color, deck.picking];
    const defines = { DOTS_RADIUS: this.props.radius.toFixed(2) };
    return super.getShaders({ vs: DOTS_VERTEX, fs: DOTS_FRAGMENT, modules, defines });
  }

  initializeState() {
    this.getAttributeManager().add({
      positions: { size: 3, type: "float64", fp64: this.use64bitPositions(), accessor: "getPosition" },
      colors: { size: 4, type: "unorm8", accessor: "getFillColor" },
    });
  }

  updateState(change) {
    super.updateState(change);
    if (!change.changeFlags.extensionsChanged) return;
    this.state.model?.destroy();
    this.state.model = new luma.Model(this.context.device, {
      ...this.getShaders(), id: this.props.id, topology: "point-list", isInstanced: false,
      bufferLayout: this.getAttributeManager().getBufferLayouts(),
    });
    this.getAttributeManager().invalidateAll();
  }

  draw() {
    this.state.model.setVertexCount(Math.min(this.getNumInstances(), this.props.most));
    this.state.model.draw(this.context.renderPass);
  }
}

// An order of so many rows of which the first, however many, are spread evenly over all: their bits from right to left.
function spreadOrder(count) {
  const bits = Math.max(1, Math.ceil(Math.log2(count))), order = new Int32Array(count);
  for (let i = 0, at = 0; i < 2 ** bits; i++) {
    let row = 0;
    for (let bit = 0; bit < bits; bit++) row |= ((i >> bit) & 1) << (bits - 1 - bit);
    if (row < count) order[at++] = row;
  }
  return order;
}

// Values of some rows, so many each.
function gathered(values, rows, width) {
  const found = new values.constructor(rows.length * width);
  rows.forEach((row, i) => { for (let k = 0; k < width; k++) found[i * width + k] = values[row * width + k]; });
  return found;
}

// Land in one flat colour. The library's own shaders work at light for each corner, and for each pixel at what only samples
// need: together as much as tens of thousands of dots take.
class LandLayer extends deck.SolidPolygonLayer {
  static layerName = "LandLayer";

  getShaders(type) {
    const vs = `#version 300 es
#define SHADER_NAME land-layer-vertex-shader
in vec3 vertexPositions;
in vec3 vertexPositions64Low;
in vec4 fillColors;
out vec4 vColor;
void main(void) {
  gl_Position = project_position_to_clipspace(vertexPositions, vertexPositions64Low, vec3(0.0), geometry.position);
  vColor = fillColors;
}
`;
    const fs = `#version 300 es
#define SHADER_NAME land-layer-fragment-shader
precision mediump float;
in vec4 vColor;
out vec4 fragColor;
void main(void) { fragColor = vColor; }
`;
    return { ...super.getShaders(type), vs, fs };
  }
}

// How many dots a panel draws: all of them at rest; while its view moves, as many as leave its frames quick.
class Motion {
  static SLOW = 45; // milliseconds between frames, of which there are then fewer than 22 a second
  static QUICK = 28;
  static PAUSE = 250; // milliseconds without a move that are rest
  static LEAST = 8000;
  static FIRST = 100000; // of the first move, when nothing is known yet: a renderer in software takes a microsecond for each
  static JUDGED = 4; // frames: a single one may wait for something else

  constructor(show, count) {
    Object.assign(this, { show, count, most: Infinity, moves: false, moving: Math.min(count, Motion.FIRST), last: -Infinity, gaps: [], timer: 0 });
  }

  moved(now = performance.now()) {
    const gap = now - this.last;
    this.last = now;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.draw(Infinity, false), Motion.PAUSE);
    if (this.moves) this.gaps.push(gap);
    else this.gaps = [];
    if (this.gaps.length === Motion.JUDGED) this.judge();
    this.draw(this.moving < this.count ? this.moving : Infinity, true); // a new move begins as the last one ended
  }

  judge() {
    const typical = this.gaps.sort((one, other) => one - other)[Motion.JUDGED / 2];
    this.gaps = [];
    const factor = typical > Motion.SLOW ? Math.max(0.1, Motion.SLOW / typical) : typical < Motion.QUICK ? 1.4 : 1;
    this.moving = Math.min(this.count, Math.max(Motion.LEAST, Math.round(this.moving * factor)));
  }

  draw(most, moves) {
    if (most === this.most && moves === this.moves) return;
    Object.assign(this, { most, moves });
    this.show();
  }
}
