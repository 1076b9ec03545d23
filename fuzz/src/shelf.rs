//! Inputs that are kept: the corpus to start from, and the crashers to never meet again.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use crate::targets::Target;

/// This package's folder: corpus and crashers are in the repository.
pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a walk starts from: the golden vectors, the target's own seeds, its corpus, and the crashers.
pub(crate) fn inputs(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let seeds = (target.seeds)().into_iter().enumerate();
    let mut inputs: Vec<_> = seeds.map(|(number, seed)| (format!("seed {number} of {}", target.name), seed)).collect();
    for folder in target.vectors {
        for file in files(&package().join("../protocol/vectors").join(folder))? {
            let bytes = from_hex(&fs::read_to_string(&file)?);
            let bytes = bytes.ok_or_else(|| io::Error::other(format!("{} is not hex", file.display())))?;
            inputs.push((file.display().to_string(), bytes));
        }
    }
    for shelf in ["corpus", "crashers"] {
        let folder = package().join(shelf).join(target.name);
        for file in if folder.is_dir() { files(&folder)? } else { Vec::new() } {
            inputs.push((file.display().to_string(), fs::read(&file)?));
        }
    }
    Ok(inputs)
}

/// The files of a folder, by name: its own order is none, and a walk must be the same each time.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    Ok(files)
}

/// The bytes of a golden vector: hex, and lines that start with `#`.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: Option<Vec<u8>> = lines.flat_map(|line| line.trim().chars()).map(|c| Some(c.to_digit(16)? as u8)).collect();
    let (pairs, odd) = digits.as_ref()?.as_chunks::<2>();
    odd.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Keeps an input that crashed the target, and says where.
pub(crate) fn keep(target: &Target, folder: Option<&Path>, input: &[u8]) -> io::Result<PathBuf> {
    let folder = folder.map_or_else(|| package().join("crashers"), Path::to_owned).join(target.name);
    fs::create_dir_all(&folder)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(input);
    let path = folder.join(format!("{:016x}", hasher.finish()));
    fs::write(&path, input)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_hex_with_explanations() {
        assert_eq!(from_hex("# what it says: a1\n00fF\n10\n"), Some(vec![0x00, 0xff, 0x10]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
    }
}
