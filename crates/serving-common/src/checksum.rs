//! Checksums of TensorFlow's files.

/// How a CRC-32C is stored: a checksum of bytes with checksums in them would be weak.
pub fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}
