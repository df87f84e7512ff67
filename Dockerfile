# terrasieve on a CPU.
#
# Build with   docker build -t terrasieve .
# Run with     docker run --rm -v "$PWD:/data" terrasieve demo --out runs/demo

FROM python:3.13-slim-trixie AS build
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE constraints-cpu.txt ./
COPY src src
# The pinned pair of constraints-cpu.txt keeps gigabytes of CUDA libraries out.
RUN python -m venv /opt/terrasieve \
    && /opt/terrasieve/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        --constraint constraints-cpu.txt '.[hdf5,netcdf,search]'

FROM python:3.13-slim-trixie
COPY --from=build /opt/terrasieve /opt/terrasieve
ENV PATH=/opt/terrasieve/bin:$PATH
RUN useradd --create-home --uid 1000 terrasieve && mkdir /data && chown terrasieve /data
USER 1000
WORKDIR /data
ENTRYPOINT ["terrasieve"]
CMD ["--help"]
