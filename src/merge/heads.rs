//! Heads: the first bytes of keys as numbers. Of two keys the greater one's is not less, so that most comparisons are settled without a visit to the keys.

use arrow::datatypes::ArrowNativeType;

/// A number as a key.
pub(crate) trait Number: ArrowNativeType + Ord {
    /// The number itself, or if it has more bits what of it fits.
    fn head(self) -> u64;

    /// A hash that depends on the seed.
    fn hash(self, seed: u64) -> u64;
}

/// The two halves of a product: each bit of the value moves many of them.
#[inline]
fn fold(value: u64, seed: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let product = u128::from(value ^ seed) * u128::from(ODD);
    product as u64 ^ (product >> 64) as u64
}

impl Number for u64 {
    #[inline]
    fn head(self) -> u64 {
        self
    }

    #[inline]
    fn hash(self, seed: u64) -> u64 {
        fold(self, seed)
    }
}

impl Number for i64 {
    #[inline]
    fn head(self) -> u64 {
        // Flipping the top bit maps signed order onto unsigned order.
        self.cast_unsigned() ^ 1 << 63
    }

    #[inline]
    fn hash(self, seed: u64) -> u64 {
        fold(self.cast_unsigned(), seed)
    }
}

impl Number for i128 {
    #[inline]
    fn head(self) -> u64 {
        // Most decimals are as small as 64 bits; the others come before or after all of those.
        i64::try_from(self).unwrap_or(if self < 0 { i64::MIN } else { i64::MAX }).head()
    }

    #[inline]
    fn hash(self, seed: u64) -> u64 {
        fold(self as u64, fold((self >> 64) as u64, seed))
    }
}

/// The heads of some byte strings, which begin after what all of them begin with.
pub(super) fn heads_of_bytes<'a>(strings: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u64> {
    let mut rest = strings.clone();
    let first = rest.next().unwrap_or_default();
    let mut common = first.len();
    while common > 0
        && let Some(string) = rest.next()
    {
        common = common_bytes(&first[..common], string);
    }
    strings.map(|string| head_of_bytes(&string[common..])).collect()
}

/// How many bytes `a` and `b` begin with alike.
pub(crate) fn common_bytes(a: &[u8], b: &[u8]) -> usize {
    if b.starts_with(a) { a.len() } else { a.iter().zip(b).take_while(|(a, b)| a == b).count() }
}

/// The first eight bytes as a number, padded with zeros, which never contradicts the order.
#[inline]
pub(crate) fn head_of_bytes(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => bytes.iter().enumerate().fold(0, |head, (at, byte)| head | u64::from(*byte) << (56 - 8 * at)),
    }
}
