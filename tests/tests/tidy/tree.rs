//! The files of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file, by its path from the repository's root.
pub(crate) struct File {
    pub(crate) path: String,
    /// None when it is not UTF-8.
    pub(crate) text: Option<String>,
    pub(crate) bytes: u64,
}

impl File {
    /// The text with its line numbers, from 1; nothing for a binary file.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.as_deref().unwrap_or_default().lines().zip(1..).map(|(line, number)| (number, line))
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
    /// Names that stand at the top level of the repository.
    pub(crate) top: Vec<String>,
}

impl Tree {
    /// The files that git knows or would add; all files when this is no git checkout. What is not yet added counts for the rules of
    /// text, but not for the top level: a node's data folder beside the sources is nobody's fault.
    pub(crate) fn load() -> Self {
        let root = root();
        let known = git(&root, &["--cached"]).unwrap_or_else(|| walk(&root));
        let others = git(&root, &["--others", "--exclude-standard"]).unwrap_or_default();
        let mut top: Vec<String> = known.iter().map(|path| first_component(path).to_owned()).collect();
        top.sort();
        top.dedup();
        let files = known.iter().chain(&others).filter_map(|path| {
            let bytes = std::fs::read(root.join(path)).ok()?;
            Some(File { path: path.clone(), bytes: bytes.len() as u64, text: String::from_utf8(bytes).ok() })
        });
        Self { files: files.collect(), top }
    }

    /// A tree of `(path, text)`, to show a check what it must find.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File { path: (*path).into(), text: Some((*text).into()), bytes: text.len() as u64 };
        Self { files: files.iter().map(file).collect(), top: files.iter().map(|(path, _)| first_component(path).to_owned()).collect() }
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// The files called `name`, wherever they are.
    pub(crate) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.rsplit('/').next() == Some(name))
    }

    pub(crate) fn at(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether `path` is a file or a folder.
    pub(crate) fn holds(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.iter().any(|file| file.path == path || file.path.starts_with(&format!("{path}/")))
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The folder of a file; empty at the top level.
pub(crate) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn first_component(path: &str) -> &str {
    path.split('/').next().unwrap()
}

fn git(root: &Path, which: &[&str]) -> Option<Vec<String>> {
    let output = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).args(which).output().ok()?;
    let paths = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| paths.split_terminator('\0').map(str::to_owned).collect())
}

/// All files below `root` but those of a build.
fn walk(root: &Path) -> Vec<String> {
    let mut folders = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let name = entry.file_name();
            match entry.file_type().unwrap().is_dir() {
                true if name == "target" || name == ".git" => {}
                true => folders.push(entry.path()),
                false => files.push(entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    files.sort();
    files
}
