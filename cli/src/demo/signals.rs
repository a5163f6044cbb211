//! What ends the demo from outside: Ctrl-C, SIGTERM, and a terminal that goes away.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are waited for, from the moment it is made.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// One that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caught {
    Interrupt,
    Terminate,
    Hangup,
}

impl Caught {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupted",
            Self::Terminate => "terminated",
            Self::Hangup => "the terminal is gone",
        }
    }

    /// The exit status by which shells know it.
    pub(super) fn status(self) -> u8 {
        let number = match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
            Self::Hangup => 1,
        };
        128 + number
    }
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.interrupt.recv() => Caught::Interrupt,
            _ = self.terminate.recv() => Caught::Terminate,
            _ = self.hangup.recv() => Caught::Hangup,
        }
    }
}
