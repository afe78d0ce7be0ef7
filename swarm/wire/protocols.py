"""Names of the streams that Murmur's peers open to each other."""

CONTROL = "/murmur/control/1"
CHAIN = "/murmur/chain/1"
PAGES = "/murmur/pages/1"
