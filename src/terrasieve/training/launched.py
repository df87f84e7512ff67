"""What Lightning Fabric is told of processes that something else launched."""

from __future__ import annotations

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

from terrasieve.processes.world import World


class LaunchedWorld(ClusterEnvironment):
    """Gives Fabric the world as it was read, in the place of Fabric's own reading of the same variables.

    Args:
        world: The processes, and which of them this one is.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    @property
    def creates_processes_externally(self) -> bool:
        """Whether nobody needs to launch any: always."""
        return True

    @property
    def main_address(self) -> str:
        """Where the processes meet."""
        return self._world.address

    @property
    def main_port(self) -> int:
        """The port that they meet at."""
        return self._world.port

    @staticmethod
    def detect() -> bool:
        """Whether Fabric is to choose this by itself: never."""
        return False

    def world_size(self) -> int:
        """Number of processes on all machines."""
        return self._world.size

    def set_world_size(self, size: int) -> None:
        """Check what Fabric makes of the numbers that it was given."""
        assert size == self._world.size, "Fabric is given the launcher's numbers"

    def global_rank(self) -> int:
        """Number of this process among all."""
        return self._world.rank

    def set_global_rank(self, rank: int) -> None:
        """Leave the number as the launcher gave it: it need not count machine by machine."""

    def local_rank(self) -> int:
        """Number of this process among those of its machine."""
        return self._world.local_rank

    def node_rank(self) -> int:
        """Number of this process's machine, where processes are numbered machine by machine."""
        return self._world.rank // self._world.per_node
