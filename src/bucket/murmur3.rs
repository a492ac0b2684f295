//! Murmur3 (x86, 32 bits) of eight bytes and of any number of them. Nothing here branches on a value, so that loops over eight-byte values are
//! vectorised.

/// The hash of the eight little-endian bytes of `value`.
#[inline]
pub(super) fn hash_i64(value: i64, seed: u32) -> u32 {
    let bits = value.cast_unsigned();
    finish(block(block(seed, bits as u32), (bits >> 32) as u32), 8)
}

/// The hash of `bytes`.
#[inline]
pub(super) fn hash_bytes(bytes: &[u8], seed: u32) -> u32 {
    let (blocks, tail) = bytes.as_chunks::<4>();
    let hash = blocks.iter().fold(seed, |hash, bytes| block(hash, u32::from_le_bytes(*bytes)));
    let rest = tail.iter().rev().fold(0, |rest, byte| rest << 8 | u32::from(*byte));
    // Without a tail this is the exclusive or with zero. The length counts modulo 2^32.
    finish(hash ^ scramble(rest), bytes.len() as u32)
}

#[inline]
fn block(hash: u32, word: u32) -> u32 {
    (hash ^ scramble(word)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

#[inline]
fn scramble(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

#[inline]
fn finish(hash: u32, len: u32) -> u32 {
    let hash = hash ^ len;
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
