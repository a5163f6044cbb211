//! Processes of the binary, each killed by its own id when its test is over.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Generous: whatever is waited for takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary, with nothing of the test's own environment that would change what it does.
pub fn stela(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stela"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STELA_"))
    {
        command.env_remove(name);
    }
    command.env("STELA_LOG", "warn");
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Outcome {
    finish(stela(args).spawn().unwrap(), "")
}

/// Runs it to its end with these lines as its input.
pub fn pipe(args: &[&str], lines: &str) -> Outcome {
    finish(stela(args).stdin(Stdio::piped()).spawn().unwrap(), lines)
}

/// How a process ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its status.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How long it ran.
    pub took: Duration,
}

fn finish(mut child: Child, lines: &str) -> Outcome {
    let began = Instant::now();
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes()).unwrap();
    }
    let id = child.id();
    let (done, watched) = channel::<()>();
    // A process that does not end by itself fails its test, and not the whole run.
    let watch = thread::spawn(move || {
        if watched.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            signal(id, Signal::KILL);
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    drop(done);
    watch.join().unwrap();
    Outcome {
        status: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
        took: began.elapsed(),
    }
}

fn signal(id: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    // It may have ended in the meantime.
    let _ = kill_process(pid, signal);
}

/// An address of this test's own, so that fixed ports never collide.
pub fn address() -> String {
    let [a, b, c]: [u8; 3] = rand::random();
    format!("127.{}.{b}.{}", a.clamp(1, 254), c.clamp(1, 254))
}

/// A running process whose lines are read one by one.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
}

impl Server {
    /// Starts one.
    pub fn start(args: &[&str]) -> Self {
        let mut child = stela(args).stdin(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Self { child, lines }
    }

    /// The next line that it prints on standard output.
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(e) => {
                let _ = self.child.kill();
                let mut err = String::new();
                let _ = self.child.stderr.take().map(|mut e| e.read_to_string(&mut err));
                panic!("the server prints nothing ({e}); on standard error: {err}");
            }
        }
    }

    /// Gives it a line to read.
    pub fn send(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\n")).unwrap();
    }

    /// SIGTERM: its status, and what it had to say on standard error.
    pub fn stop(mut self) -> (i32, String) {
        signal(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "SIGTERM does not stop it");
            thread::sleep(Duration::from_millis(5));
        };
        let mut err = String::new();
        if let Some(mut said) = self.child.stderr.take() {
            said.read_to_string(&mut err).unwrap();
        }
        (status, err)
    }

    /// From now on nobody reads its standard error: what it writes there fails.
    pub fn unheard(&mut self) {
        self.child.stderr = None;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
