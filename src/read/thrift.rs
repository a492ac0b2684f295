//! What Parquet's metadata claims to hold, held to the bytes that there are, before a decoder that trusts it reserves memory or descends.
//!
//! The metadata is Thrift's compact protocol: fields of structs as (type, number) and value, lists with their length in front. It is walked once, without
//! memory of its own. What passes may still be nonsense, but claims no more values than it has bytes.

use crate::error::{Error, Result};

/// How deep columns may be nested, and structures of the metadata. Manifests, which list the columns, nest half as deep.
const MAX_DEPTH: usize = 128;

/// The field of the footer that lists the columns, parents before children, and the field of a column that says how many children it has.
const SCHEMA: i64 = 2;
const CHILDREN: i64 = 5;

const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// Checks a footer: its lists, and how its columns are nested.
pub(crate) fn check_footer(footer: &[u8]) -> Result<()> {
    let mut walk = Walk { rest: footer };
    let mut number = 0;
    while let Some(kind) = walk.field(&mut number)? {
        if (number, kind) == (SCHEMA, LIST) { walk.schema()? } else { walk.value(kind, MAX_DEPTH)? }
    }
    Ok(())
}

/// Checks one structure, such as a page index.
pub(crate) fn check_struct(bytes: &[u8]) -> Result<()> {
    Walk { rest: bytes }.value(STRUCT, MAX_DEPTH)
}

fn refuse(what: &str) -> Error {
    Error::corrupt(format!("parquet metadata {what}"))
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl Walk<'_> {
    fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| refuse("ends before its end"))?;
        self.rest = rest;
        Ok(*first)
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        let rest = usize::try_from(bytes).ok().and_then(|bytes| self.rest.get(bytes..));
        self.rest = rest.ok_or_else(|| refuse("claims more bytes than it has"))?;
        Ok(())
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(refuse("has a number of too many bytes"))
    }

    fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// The type of a struct's next field, `number` becoming its number; `None` at the end.
    fn field(&mut self, number: &mut i64) -> Result<Option<u8>> {
        let header = self.byte()?;
        if header == STOP {
            return Ok(None);
        }
        let step = i64::from(header >> 4);
        *number = if step == 0 { self.signed()? } else { number.saturating_add(step) };
        Ok(Some(header & 0xf))
    }

    /// A list's type and length. Every value takes a byte at least.
    fn list(&mut self) -> Result<(u8, u64)> {
        let header = self.byte()?;
        let length = if header >> 4 == 0xf { self.number()? } else { u64::from(header >> 4) };
        if length > self.rest.len() as u64 {
            return Err(refuse("claims a longer list than it has bytes"));
        }
        Ok((header & 0xf, length))
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<()> {
        let below = || depth.checked_sub(1).ok_or_else(|| refuse("is nested too deep"));
        match kind {
            // The type is the value.
            TRUE | FALSE => Ok(()),
            I8 => self.skip(1),
            I16 | I32 | I64 => self.number().map(|_| ()),
            DOUBLE => self.skip(8),
            UUID => self.skip(16),
            BINARY => {
                let bytes = self.number()?;
                self.skip(bytes)
            }
            LIST | SET => {
                let (kind, length) = self.list()?;
                let below = below()?;
                (0..length).try_for_each(|_| self.element(kind, below))
            }
            MAP => {
                let pairs = self.number()?;
                if pairs == 0 {
                    return Ok(());
                }
                if pairs > self.rest.len() as u64 {
                    return Err(refuse("claims a larger map than it has bytes"));
                }
                let kinds = self.byte()?;
                let below = below()?;
                (0..pairs).try_for_each(|_| {
                    self.element(kinds >> 4, below)?;
                    self.element(kinds & 0xf, below)
                })
            }
            STRUCT => {
                let below = below()?;
                let mut number = 0;
                while let Some(kind) = self.field(&mut number)? {
                    self.value(kind, below)?;
                }
                Ok(())
            }
            _ => Err(refuse("has a value of an unknown type")),
        }
    }

    /// A value of a list, where booleans are bytes.
    fn element(&mut self, kind: u8, depth: usize) -> Result<()> {
        if [TRUE, FALSE].contains(&kind) { self.skip(1) } else { self.value(kind, depth) }
    }

    /// The columns, parents before children.
    fn schema(&mut self) -> Result<()> {
        let (kind, columns) = self.list()?;
        if kind != STRUCT {
            return Err(refuse("has columns of an unknown type"));
        }
        // Of each open column, the children that are still to come.
        let mut open: Vec<u64> = vec![];
        for at in 0..columns {
            while open.pop_if(|left| *left == 0).is_some() {}
            open.iter_mut().next_back().into_iter().for_each(|left| *left -= 1);
            let children = self.children()?;
            if children > columns - at - 1 || open.len() >= MAX_DEPTH {
                return Err(refuse("claims more columns than it has, or nests them too deep"));
            }
            if children > 0 {
                open.push(children);
            }
        }
        Ok(())
    }

    /// How many children a column claims to have.
    fn children(&mut self) -> Result<u64> {
        let (mut number, mut children) = (0, 0);
        while let Some(kind) = self.field(&mut number)? {
            if (number, kind) == (CHILDREN, I32) {
                children =
                    u64::try_from(self.signed()?).map_err(|_| refuse("has a column with fewer than no children"))?;
            } else {
                self.value(kind, MAX_DEPTH)?;
            }
        }
        Ok(children)
    }
}
