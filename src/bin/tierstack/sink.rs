//! What a command writes in bulk. A thread of its own writes it, so that a pipe that nobody reads holds up that
//! thread, and neither ctrl-C nor the closing of the store.

use std::io::{self, Write};
use std::mem;

use tokio::sync::{mpsc, oneshot};

use tierstack::Error;

use crate::failure::{Failure, Outcome};

/// Bytes that are handed to the thread at a time.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait for it.
const WAITING: usize = 4;

/// A writer behind a thread. Dropped before its [end](Self::finish), it leaves the thread behind.
pub(crate) struct Sink {
    buffer: Vec<u8>,
    chunks: mpsc::Sender<Vec<u8>>,
    written: oneshot::Receiver<io::Result<()>>,
    failed: Box<dyn Fn(io::Error) -> Failure + Send + Sync>,
}

impl Sink {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::new(io::stdout(), Failure::output)
    }

    /// Any writer, and what its failure is called.
    pub(crate) fn new(
        mut writer: impl Write + Send + 'static,
        failed: impl Fn(io::Error) -> Failure + Send + Sync + 'static,
    ) -> Self {
        let (chunks, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING);
        let (tell, written) = oneshot::channel();
        std::thread::spawn(move || {
            let mut write = || {
                while let Some(chunk) = waiting.blocking_recv() {
                    writer.write_all(&chunk)?;
                }
                writer.flush()
            };
            // The command may be over.
            let _ = tell.send(write());
        });
        Self { buffer: Vec::new(), chunks, written, failed: Box::new(failed) }
    }

    /// Takes what is appended to its buffer, and hands it on where that is enough.
    pub(crate) async fn write(
        &mut self,
        append: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> Outcome {
        append(&mut self.buffer).map_err(&self.failed)?;
        if self.buffer.len() >= CHUNK {
            let chunk = mem::take(&mut self.buffer);
            if self.chunks.send(chunk).await.is_err() {
                return self.end().await;
            }
        }
        Ok(())
    }

    /// Writes the rest, and waits until all is written.
    pub(crate) async fn finish(mut self) -> Outcome {
        let rest = mem::take(&mut self.buffer);
        // The thread that takes nothing any more says why.
        let _ = self.chunks.send(rest).await;
        // It ends when there is no sender left.
        self.chunks = mpsc::channel(1).0;
        self.end().await
    }

    /// How the thread ended.
    async fn end(&mut self) -> Outcome {
        match (&mut self.written).await {
            Ok(written) => written.map_err(&self.failed),
            Err(_) => Err(Error::internal("the writer of the output ended early").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written, up to a number of bytes.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<Vec<u8>>>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            if disk.len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn everything_is_written_in_order_at_the_end() {
        let disk = Disk(Arc::default(), usize::MAX);
        let mut sink = Sink::new(disk.clone(), Failure::output);
        let mut expected = Vec::new();
        for n in 0..40_000 {
            writeln!(expected, "line {n}").unwrap();
            assert!(sink.write(|buffer| writeln!(buffer, "line {n}")).await.is_ok());
        }
        assert!(sink.finish().await.is_ok());
        assert_eq!(*disk.0.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_failure_is_told_by_a_later_write_and_at_the_end() {
        let mut sink = Sink::new(Disk(Arc::default(), 10), Failure::output);
        let failed = loop {
            if let Err(failed) = sink.write(|buffer| buffer.write_all(&[b'x'; CHUNK])).await {
                break failed;
            }
        };
        assert!(failed.to_string().contains("standard output cannot be written"));
        let mut sink = Sink::new(Disk(Arc::default(), 10), Failure::output);
        assert!(sink.write(|buffer| buffer.write_all(&[b'x'; 11])).await.is_ok());
        assert!(sink.finish().await.is_err());
    }
}
