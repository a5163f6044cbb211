//! From a key to its partition.
//!
//! The hash is OpenMLDB's, MurmurHash64A with its seed (Austin Appleby, public domain), so that a key lands in the
//! partition that existing tools expect.

use crate::ids::PartitionId;

const SEED: u64 = 0xe17a_1465;
const M: u64 = 0xc6a4_a793_5bd1_e995;
const R: u32 = 47;

/// MurmurHash64A.
#[must_use]
pub fn murmur64(key: &[u8], seed: u64) -> u64 {
    let mut h = seed ^ (key.len() as u64).wrapping_mul(M);
    let (words, tail) = key.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        h = (h ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        h = (h ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    h ^= h >> R;
    h = h.wrapping_mul(M);
    h ^ (h >> R)
}

/// The partition of `key` in a table of `partitions` (at least 1) partitions.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u32) -> PartitionId {
    let hash = murmur64(key, SEED).cast_signed().unsigned_abs();
    PartitionId(u32::try_from(hash % u64::from(partitions.max(1))).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_algorithm() {
        // Values of the reference implementation.
        assert_eq!(murmur64(b"", 0), 0);
        assert_eq!(murmur64(b"hello", 0), 0x1e68_d17c_457b_f117);
    }

    #[test]
    fn spreads_keys_over_all_partitions() {
        let mut seen = [0; 8];
        for i in 0..8000 {
            seen[partition_of(format!("key{i}").as_bytes(), 8).0 as usize] += 1;
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
    }
}
