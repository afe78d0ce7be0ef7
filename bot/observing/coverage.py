"""Whether the swarm serves every block of the model."""

from swarm.errors import NoRouteError
from swarm.network import Network
from swarm.routing import check_coverage, usable_servers


def swarm_trouble(network: Network) -> str:
    """What the swarm lacks, as a sentence; "" if every block is served."""
    try:
        servers = usable_servers(network.directory.servers, network.num_blocks, {})
        check_coverage(servers, network.num_blocks)
    except NoRouteError as error:
        return f"the swarm cannot answer: {error}; `./murmur serve` on another machine adds some"
    return ""
