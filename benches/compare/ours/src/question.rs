//! The questions, and the form of their answers: the same text for the same value from every engine.

use std::collections::BTreeMap;

use crate::{Failure, TABLES};

/// What is asked about orders joined with lineitem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// T1: the number of rows, `sum(l_quantity)` and `sum(o_totalprice)`.
    Narrow,
    /// T2: the number of rows, and the maximum of each of the 25 columns.
    Wide,
}

/// Values by name, as text.
pub(crate) type Answer = BTreeMap<String, String>;

/// How the values of a column become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Max,
}

impl Question {
    pub(crate) fn parse(name: &str) -> Result<Self, Failure> {
        match name {
            "T1" => Ok(Self::Narrow),
            "T2" => Ok(Self::Wide),
            _ => Err(format!("no question {name}").into()),
        }
    }

    /// The column of each table that is returned beside the key; `None` for all.
    pub(crate) fn payload(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Narrow => Some(["o_totalprice", "l_quantity"]),
            Self::Wide => None,
        }
    }

    /// What to do with a column, if it counts.
    pub(crate) fn reduction(self, column: &str) -> Option<Reduction> {
        match self {
            Self::Narrow => {
                let key = TABLES.iter().any(|(_, key)| *key == column);
                (!key).then_some(Reduction::Sum)
            }
            Self::Wide => Some(Reduction::Max),
        }
    }
}

impl Reduction {
    /// What the answer calls the reduced column.
    pub(crate) fn name(self, column: &str) -> String {
        match self {
            Self::Sum => format!("sum({column})"),
            Self::Max => format!("max({column})"),
        }
    }
}
