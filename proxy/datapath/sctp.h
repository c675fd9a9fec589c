// The CRC32c of an SCTP packet after a change of its ports, without reading
// the packet: a checksum of this kind is linear, so that what has to be added
// to it is the checksum of the change followed by zeros, which is the change
// times x to the power of the packet's bits, modulo the polynomial.

#define CRC32C 0x82f63b78 // bit-reversed

// times multiplies two polynomials whose highest power is the lowest bit.
static __noinline __u32 times(__u32 a, __u32 b)
{
	__u32 product = 0;

	for (int i = 31; i >= 0; i--) {
		product ^= b & -((a >> i) & 1);
		b = (b >> 1) ^ (CRC32C & -(b & 1));
	}
	return product;
}

// crc_change is what a change of the first four bytes, as a little-endian
// number, does to the checksum of a packet of n bytes.
static __always_inline __u32 crc_change(__u32 change, __u32 n)
{
	__u32 power = 0x00800000; // x^8: a byte

	for (int i = 0; i < 16; i++) {
		__u32 next = times(change, power);

		change = (n >> i) & 1 ? next : change;
		power = times(power, power);
	}
	return change;
}
