//! Whose directory this is: the file `NAMESERVER` in it.
//!
//! **Invariants**
//! * A directory draws its uuid once. Every message between nameservers names the uuid that is meant, so that a
//!   directory which was wiped or exchanged is never taken for its predecessor (O13).
//! * `node` is written (synced) before the first Raft message is accepted or sent in its name, and never changes once
//!   the directory has Raft state.
//! * Whether a directory is *empty* is not written anywhere: it is empty as long as it holds no vote, no entry and no
//!   snapshot. So a crash at any moment of the founding leaves it either empty, and it is asked again, or a member.

use std::path::{Path, PathBuf};

use stela_common::fs::{self, Disk};

use crate::config::Config;
use crate::error::StartError;

/// The newest format that this version writes and reads.
const FORMAT: u32 = 1;
/// The name of the file.
const FILE: &str = "NAMESERVER";
const MAGIC: &str = "stela nameserver";

/// Whose directory it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: String,
    /// The server's endpoint.
    pub endpoint: String,
    /// Drawn when the directory was made.
    pub dir_uuid: String,
    /// Its number in the group; 0: in none yet.
    pub node: u64,
    /// The list it was started with when it drew its uuid: another list on an empty directory means another uuid.
    pub nameservers: Vec<String>,
}

impl Identity {
    /// A new one for an empty directory.
    #[must_use]
    pub fn draw(config: &Config) -> Self {
        let (high, low): (u64, u64) = (rand::random(), rand::random());
        Self {
            cluster: config.cluster.clone(),
            endpoint: config.endpoint.clone(),
            dir_uuid: format!("{high:016x}{low:016x}"),
            node: 0,
            nameservers: config.list().into_iter().collect(),
        }
    }

    /// Reads the one of a directory; `None`: there is none.
    ///
    /// # Errors
    /// Another version's, another kind of server's, or an unreadable file.
    pub fn read(dir: &Path) -> Result<Option<Self>, StartError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(StartError::io(path)(e)),
        };
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text, &path).map(Some)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, StartError> {
        let damaged = |what: &str| StartError::Damaged {
            dir: path.parent().unwrap_or(path).to_owned(),
            what: format!("file {FILE} is damaged ({what})"),
        };
        let mut lines = text.lines();
        let version = lines
            .next()
            .and_then(|l| l.strip_prefix(MAGIC))
            .and_then(|v| v.trim().parse::<u32>().ok());
        match version {
            None => return Err(damaged("no header")),
            Some(found) if found > FORMAT => {
                return Err(StartError::Newer { path: path.to_owned(), found, known: FORMAT });
            }
            Some(_) => {}
        }
        let (body, crc) = text.rsplit_once("crc ").ok_or_else(|| damaged("no checksum"))?;
        if u32::from_str_radix(crc.trim(), 16).ok() != Some(crc32c::crc32c(body.as_bytes())) {
            return Err(damaged("checksum"));
        }
        let field = |name: &str| {
            body.lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))
                .map(str::to_owned)
                .ok_or_else(|| damaged(name))
        };
        Ok(Self {
            cluster: field("cluster")?,
            endpoint: field("endpoint")?,
            dir_uuid: field("dir_uuid")?,
            node: field("node")?.parse().map_err(|_| damaged("node"))?,
            nameservers: field("nameservers")?.split(',').map(str::to_owned).collect(),
        })
    }

    /// Writes it; on disk when this returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, dir: &Path) -> Result<(), StartError> {
        let body = format!(
            "{MAGIC} {FORMAT}\ncluster {}\nendpoint {}\ndir_uuid {}\nnode {}\nnameservers {}\n",
            self.cluster,
            self.endpoint,
            self.dir_uuid,
            self.node,
            self.nameservers.join(",")
        );
        let crc = crc32c::crc32c(body.as_bytes());
        let path = dir.join(FILE);
        fs::replace(&Disk::real(), &path, format!("{body}crc {crc:08x}\n").as_bytes())
            .map_err(StartError::io(path))
    }

    /// Is it the directory of the server that `config` describes?
    ///
    /// # Errors
    /// Whose it is.
    pub fn check(&self, config: &Config) -> Result<(), StartError> {
        let foreign =
            |owner, own, flag| StartError::Foreign { dir: config.dir.clone(), owner, own, flag };
        if self.cluster != config.cluster {
            return Err(foreign(
                format!("cluster '{}'", self.cluster),
                format!("'{}'", config.cluster),
                "--cluster",
            ));
        }
        if self.endpoint != config.endpoint {
            return Err(foreign(
                format!("nameserver {}", self.endpoint),
                config.endpoint.clone(),
                "--endpoint",
            ));
        }
        Ok(())
    }
}

/// Refuses a directory of another kind of server, and one that has Raft state but does not say whose.
///
/// # Errors
/// What stands in the way.
pub fn check_kind(config: &Config) -> Result<(), StartError> {
    let at = |name: &str| -> PathBuf { config.dir.join(name) };
    if fs::exists(at("TABLET")) {
        return Err(StartError::Foreign {
            dir: config.dir.clone(),
            owner: "a tablet".into(),
            own: "a nameserver".into(),
            flag: "--role",
        });
    }
    if fs::exists(at(FILE)) {
        return Ok(());
    }
    if fs::exists(at("log")) {
        let what = format!("it has a log, but no file {FILE} that says whose it is");
        return Err(StartError::Damaged { dir: config.dir.clone(), what });
    }
    // A crash before the file got its name leaves a directory that is as good as empty.
    let ours = ["LOCK".to_owned(), format!("{FILE}.tmp")];
    let found = fs::read_dir(&config.dir).unwrap_or_default();
    let foreign =
        |p: &&PathBuf| p.file_name().is_none_or(|n| ours.iter().all(|ours| n != ours.as_str()));
    match found.iter().find(foreign) {
        Some(file) => Err(StartError::NotEmpty { dir: config.dir.clone(), file: file.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_somebody_elses_files_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let list = vec!["a:1".to_owned()];
        let config = Config::new("a:1".into(), list, dir.path().into(), "c".into());
        check_kind(&config).unwrap();
        fs::write(dir.path().join("LOCK"), b"").unwrap();
        check_kind(&config).unwrap();
        fs::write(dir.path().join("mine.txt"), b"x").unwrap();
        assert!(matches!(check_kind(&config), Err(StartError::NotEmpty { .. })));
        Identity::draw(&config).write(dir.path()).unwrap();
        check_kind(&config).unwrap();
    }

    #[test]
    fn what_is_written_is_read_and_what_is_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(
            "a:1".into(),
            vec!["b:2".into(), "a:1".into()],
            dir.path().into(),
            "c".into(),
        );
        assert_eq!(Identity::read(dir.path()).unwrap(), None);
        let mut id = Identity::draw(&config);
        id.node = 3;
        id.write(dir.path()).unwrap();
        assert_eq!(Identity::read(dir.path()).unwrap(), Some(id.clone()));
        id.check(&config).unwrap();
        let other = Config { cluster: "d".into(), ..config.clone() };
        assert!(id.check(&other).unwrap_err().to_string().contains("belongs to cluster 'c'"));
        let other = Config { endpoint: "b:2".into(), ..config };
        assert!(id.check(&other).unwrap_err().to_string().contains("belongs to nameserver a:1"));
        let path = dir.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("node 3", "node 4").as_bytes()).unwrap();
        assert!(matches!(Identity::read(dir.path()), Err(StartError::Damaged { .. })));
        fs::write(&path, text.replace("nameserver 1", "nameserver 9").as_bytes()).unwrap();
        assert!(matches!(Identity::read(dir.path()), Err(StartError::Newer { found: 9, .. })));
    }
}
