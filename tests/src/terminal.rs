//! A program in a terminal of its own: what it prints is what a person would see.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A running program and its terminal.
pub struct Terminal {
    child: Child,
    master: Arc<OwnedFd>,
    seen: Arc<Mutex<String>>,
    taken: usize,
}

impl Terminal {
    /// Starts `command` in a new terminal.
    ///
    /// # Errors
    /// There is no terminal, or the program cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave =
            || rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
        command.stdin(Stdio::from(slave()?)).stdout(Stdio::from(slave()?)).stderr(Stdio::null());
        // A terminal without cursor movements: prompts are printed and lines are read plainly.
        command.env("TERM", "dumb");
        let child = command.spawn()?;
        drop(command);
        let (master, seen) = (Arc::new(master), Arc::new(Mutex::new(String::new())));
        let (reader, text) = (master.clone(), seen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = rustix::io::read(&*reader, &mut buffer) {
                text.lock().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Ok(Self { child, master, seen, taken: 0 })
    }

    /// Types a line.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let mut master = std::fs::File::from(self.master.try_clone()?);
        master.write_all(line.as_bytes())?;
        master.write_all(b"\n")?;
        Ok(())
    }

    /// What was printed since the last call, up to the next prompt (text that ends in `> `), which is included.
    ///
    /// # Errors
    /// There is none within half a minute.
    pub fn until_prompt(&mut self) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            {
                let seen = self.seen.lock();
                let new = &seen[self.taken..];
                if new.ends_with("> ") {
                    let text = new.replace('\r', "");
                    self.taken = seen.len();
                    return Ok(text);
                }
                if Instant::now() > deadline {
                    bail!("no prompt; printed so far: {new}");
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
