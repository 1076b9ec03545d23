//! The operating system's randomness: `core` takes what it needs as an argument.

/// `N` random bytes.
///
/// # Errors
///
/// [`NoEntropy`] when the system has none to give; nothing that needs an identity can go on then.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A random number from 1 to 2^63 − 1: an internal id.
///
/// # Errors
///
/// [`NoEntropy`], as for [`bytes`].
pub fn id() -> Result<u64, NoEntropy> {
    Ok((u64::from_le_bytes(bytes()?) >> 1).max(1))
}

/// The operating system gave no randomness.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gives no randomness ({0}): check that /dev/urandom and getrandom(2) are allowed here")]
pub struct NoEntropy(#[from] getrandom::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fit_sql_and_differ() {
        let ids: std::collections::BTreeSet<u64> = (0..64).map(|_| id().unwrap()).collect();
        assert_eq!(ids.len(), 64);
        assert!(ids.iter().all(|id| (1..1 << 63).contains(id)));
        assert_ne!(bytes::<32>().unwrap(), [0; 32]);
    }
}
