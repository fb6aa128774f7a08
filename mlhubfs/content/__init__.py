"""The bytes of one asset at an offset: blocks, from memory, disk or the network, checked."""
