//! JSON text with one line per field and per element of the top level's arrays: small, and readable in a diff.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::error::{Error, Result};

/// How deep values stand on lines of their own: the fields of the document, and the elements of their arrays and objects.
const LINES_DEPTH: usize = 2;

/// Encodes `value` with a newline at the end.
pub(super) fn to_lines(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let mut serializer = Serializer::with_formatter(&mut bytes, Lines::default());
    value.serialize(&mut serializer).map_err(|e| Error::internal("a manifest could not be encoded").with_source(e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Puts values down to [`LINES_DEPTH`] on lines of their own and packs what is deeper.
#[derive(Debug, Default)]
struct Lines {
    depth: usize,
    /// Whether the container that ends now had a value.
    filled: bool,
}

impl Lines {
    fn open<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: u8) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        writer.write_all(&[bracket])
    }

    fn next<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        match self.depth {
            ..=LINES_DEPTH => self.line(writer),
            _ if first => Ok(()),
            _ => writer.write_all(b" "),
        }
    }

    fn close<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: u8) -> io::Result<()> {
        self.depth -= 1;
        if self.filled && self.depth < LINES_DEPTH {
            self.line(writer)?;
        }
        self.filled = true;
        writer.write_all(&[bracket])
    }

    fn line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(b"  "))
    }
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b'[')
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.filled = true;
        CompactFormatter.end_array_value(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b']')
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b'{')
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.filled = true;
        CompactFormatter.end_object_value(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b'}')
    }
}
