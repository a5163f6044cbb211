//! The demo's directory: a temporary one, or one that was given; empty before, and gone or empty after.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, chmod};
use stela_common::fs::{self, Disk};

/// The directory, and whether it was made here.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    made: bool,
}

impl Home {
    /// Makes the directory, or takes the given one if it is empty.
    pub(super) fn prepare(given: Option<&Path>) -> Result<Self> {
        let temporary =
            || std::env::temp_dir().join(format!("stela-demo-{:08x}", rand::random::<u32>()));
        let path = given.map_or_else(temporary, Path::to_owned);
        let path = std::path::absolute(&path)?;
        let cure = "give another one with --dir";
        let made = !fs::exists(&path);
        if made {
            fs::create_dir_all(&Disk::real(), &path)
                .with_context(|| format!("directory {} cannot be made; {cure}", path.display()))?;
            chmod(&path, Mode::RWXU).with_context(|| format!("directory {}", path.display()))?;
        } else {
            let inside = fs::read_dir(&path)
                .with_context(|| format!("directory {} cannot be read; {cure}", path.display()))?;
            ensure!(inside.is_empty(), "directory {} is not empty; {cure}", path.display());
        }
        Ok(Self { path, made })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What removes all that the demo has put there, as a command.
    pub(super) fn removal(&self) -> String {
        let path = super::commands::quoted(&self.path.to_string_lossy());
        if self.made { format!("rm -r {path}") } else { format!("rm -r {path}/*") }
    }

    /// Removes all that the demo has put there, and the directory if it has made it.
    pub(super) fn remove(&self) -> Result<()> {
        let remove = || -> io::Result<()> {
            if self.made {
                return fs::remove_dir_all(&self.path);
            }
            for path in fs::read_dir(&self.path)? {
                if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
            }
            Ok(())
        };
        remove().with_context(|| {
            format!("directory {} cannot be removed: remove it by hand", self.path.display())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_never_touched_and_what_was_made_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let (new, old) = (root.path().join("a/b"), root.path().join("old"));
        let home = Home::prepare(Some(&new)).unwrap();
        fs::write(new.join("x.log"), b"x").unwrap();
        home.remove().unwrap();
        assert!(!fs::exists(&new));

        fs::create_dir_all(&Disk::real(), &old).unwrap();
        let home = Home::prepare(Some(&old)).unwrap();
        fs::write(old.join("x.log"), b"x").unwrap();
        fs::create_dir_all(&Disk::real(), old.join("tablet1/log")).unwrap();
        let refused = Home::prepare(Some(&old)).unwrap_err().to_string();
        assert!(refused.contains("is not empty") && refused.contains("--dir"), "{refused}");
        home.remove().unwrap();
        assert!(fs::read_dir(&old).unwrap().is_empty());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, b"x").unwrap();
        for path in [file.join("x"), file.clone()] {
            let refused = Home::prepare(Some(&path)).unwrap_err().to_string();
            assert!(refused.contains("file") && refused.contains("--dir"), "{refused}");
        }
    }
}
