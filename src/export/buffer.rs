//! Lines on their way out.

use std::io::{self, Write};

/// Bytes that are written at a time.
const AT_A_TIME: usize = 1 << 18;

/// Gathers lines and writes them in large pieces.
pub(super) struct Buffer<'a> {
    lines: Vec<u8>,
    output: Box<dyn Write + Send + 'a>,
}

impl<'a> Buffer<'a> {
    pub(super) fn new(output: Box<dyn Write + Send + 'a>) -> Self {
        Self {
            lines: Vec::with_capacity(AT_A_TIME + 4096),
            output,
        }
    }

    /// Lines are appended here.
    pub(super) fn lines(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }

    /// Writes what is there, if that is much.
    pub(super) fn write_some(&mut self) -> io::Result<()> {
        if self.lines.len() >= AT_A_TIME {
            self.output.write_all(&self.lines)?;
            self.lines.clear();
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.output.write_all(&self.lines)?;
        self.lines.clear();
        self.output.flush()
    }
}
