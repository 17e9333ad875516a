"""Files on servers and in object stores: addresses, ranges of bytes, and the source that opens them."""
