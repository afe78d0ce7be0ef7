"""From where an address can be dialled."""

import pytest

from swarm.addresses import reach_of


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("/ip4/127.0.0.1/tcp/31337/p2p/x", "machine"),
        ("/ip4/127.9.9.9/tcp/31337", "machine"),
        ("/ip6/::1/tcp/31337", "machine"),
        ("/dns4/localhost/tcp/31337", "machine"),
        ("/ip4/192.168.1.7/tcp/31337", "network"),
        ("/ip4/10.0.0.1/tcp/1", "network"),
        ("/ip4/172.16.0.1/tcp/1", "network"),
        ("/ip4/100.64.0.1/tcp/1", "network"),
        ("/ip6/fe80::1/tcp/1", "network"),
        ("/ip6/fd00::1/tcp/1", "network"),
        ("/ip4/999.1.1.1/tcp/1", "network"),
        ("/ip4/8.8.8.8/tcp/31337", "internet"),
        ("/ip6/2600::1/tcp/1", "internet"),
        ("/dns4/swarm.example.org/tcp/31337", "internet"),
    ],
)
def test_an_address_says_who_can_dial_it(address: str, reach: str) -> None:
    assert reach_of(address) == reach
