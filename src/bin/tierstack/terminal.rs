//! The terminal as a screen that is painted again and again: what was there before is back at the end.

use std::io::{self, IsTerminal, Write};

/// The screen, until it is dropped.
pub(crate) struct Screen {
    #[cfg(unix)]
    before: Option<rustix::termios::Termios>,
}

/// What is shown where nobody says how large the terminal is.
#[cfg(not(unix))]
const SIZE: (usize, usize) = (80, 24);

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

impl Screen {
    /// `None`: standard output is no terminal.
    pub(crate) fn open() -> io::Result<Option<Self>> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let screen = Self {
            #[cfg(unix)]
            before: keys_at_once(),
        };
        let mut out = io::stdout().lock();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(Some(screen))
    }

    /// Shows as much of these lines as there is room for.
    pub(crate) fn paint(&self, text: &str) -> io::Result<()> {
        let (columns, rows) = self.size();
        let mut frame = String::from("\x1b[H");
        for (at, line) in text.lines().take(rows).enumerate() {
            if at > 0 {
                frame.push_str("\r\n");
            }
            frame.extend(line.chars().take(columns));
            // The rest of the line that was there.
            frame.push_str("\x1b[K");
        }
        frame.push_str("\x1b[J");
        let mut out = io::stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }

    #[cfg(unix)]
    fn size(&self) -> (usize, usize) {
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => (80, 24),
        }
    }

    #[cfg(not(unix))]
    fn size(&self) -> (usize, usize) {
        SIZE
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to tell, if it fails.
        let _ = io::stdout().lock().write_all(LEAVE.as_bytes());
        let _ = io::stdout().flush();
        #[cfg(unix)]
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(
                io::stdin(),
                rustix::termios::OptionalActions::Now,
                before,
            );
        }
    }
}

/// Keys come at once, and are not shown. Ctrl-C is still a signal. Gives how it was before; `None`: there are no keys.
#[cfg(unix)]
fn keys_at_once() -> Option<rustix::termios::Termios> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let before = tcgetattr(io::stdin()).ok()?;
    let mut now = before.clone();
    now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Now, &now).ok()?;
    Some(before)
}
