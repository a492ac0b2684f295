//! The questions, and the form of their answers: the same text for the same value from every engine.

use std::collections::BTreeMap;

use crate::Failure;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Question {
    /// T1: of orders joined with lineitem the number of rows, `sum(l_quantity)` and `sum(o_totalprice)`.
    Narrow,
    /// T2: of the same join the number of rows, and the maximum of each of the 25 columns.
    Wide,
    /// T3: of the lines of the orders of some customers the number, `sum(l_extendedprice)` and `max(l_comment)`.
    Selective {
        /// The last of the customers, which are numbered from 1.
        most_customer: i64,
    },
    /// T3-keys: the same of the lines of 100 orders.
    LookUp { scale_factor: f64 },
    /// T4: the same of all lines, which were just written.
    Written,
    /// Of plays the number, `sum(ms_played)` and the maximum of each column of text; all columns are read.
    Plays,
    /// T7: of two skewed datasets the number of joined rows, and the sums of either side's values.
    Skew,
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
    pub(crate) fn parse(name: &str, scale_factor: f64) -> Result<Self, Failure> {
        let customers = |thousandths: i64| (150.0 * scale_factor).round() as i64 * thousandths;
        match name {
            "T1" => Ok(Self::Narrow),
            "T2" => Ok(Self::Wide),
            "T3-0.1" => Ok(Self::Selective { most_customer: customers(1) }),
            "T3-1" => Ok(Self::Selective { most_customer: customers(10) }),
            "T3-keys" => Ok(Self::LookUp { scale_factor }),
            "T4" => Ok(Self::Written),
            "plays" => Ok(Self::Plays),
            _ if name.starts_with("T7-") => Ok(Self::Skew),
            _ => Err(format!("no question {name}").into()),
        }
    }

    /// The datasets and their keys; the floor reads no others than those that are looked at.
    pub(crate) fn tables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::LookUp { .. } | Self::Written => &[("lineitem", "l_orderkey")],
            Self::Plays => &[("plays", "user_id")],
            Self::Skew => &[("left", "k"), ("right", "k")],
            _ => &crate::TABLES,
        }
    }

    /// The columns of each table that are returned beside the key; `None` for all.
    pub(crate) fn payload(self) -> Option<&'static [&'static [&'static str]]> {
        match self {
            Self::Narrow => Some(&[&["o_totalprice"], &["l_quantity"]]),
            Self::Wide | Self::Plays | Self::Skew => None,
            Self::Selective { .. } => Some(&[&[], &["l_extendedprice", "l_comment"]]),
            Self::LookUp { .. } | Self::Written => Some(&[&["l_extendedprice", "l_comment"]]),
        }
    }

    /// The columns of each table that rows are chosen by, beside the key.
    pub(crate) fn chosen_by(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Selective { .. } => &[&["o_custkey"], &[]],
            _ => &[&[], &[]],
        }
    }

    /// What to do with a column, if it counts.
    pub(crate) fn reduction(self, column: &str) -> Option<Reduction> {
        match self {
            Self::Narrow | Self::Skew => {
                let key = self.tables().iter().any(|(_, key)| *key == column);
                (!key).then_some(Reduction::Sum)
            }
            Self::Wide => Some(Reduction::Max),
            Self::Plays => match column {
                "ms_played" => Some(Reduction::Sum),
                "played_at" | "shuffle" => None,
                _ => Some(Reduction::Max),
            },
            Self::Selective { .. } | Self::LookUp { .. } | Self::Written => match column {
                "l_extendedprice" => Some(Reduction::Sum),
                "l_comment" => Some(Reduction::Max),
                _ => None,
            },
        }
    }
}

/// 100 orders, spread over all keys: of every 32 keys TPC-H uses the first eight.
pub(crate) fn keys(scale_factor: f64) -> Vec<i64> {
    (0..100).map(|number| (f64::from(number) * 60_000.0 * scale_factor) as i64 / 32 * 32 + 1).collect()
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
