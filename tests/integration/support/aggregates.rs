//! Aggregates and conditions over plain values, each as a loop over rows and as what the crate calls it.
//!
//! The loops share no code with the crate. Of floats, results are compared up to rounding: sums depend on the order of rows.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use chrono::{DateTime, NaiveDate, TimeDelta};
use proptest::prelude::*;
use sort_merge_bucket::{
    Aggregator, All, Any, ApproxCountDistinct, Collect, Comparison, Count, CountDistinct, First, Last, Literal, Max,
    Mean, Min, Predicate, StdDev, Sum, SumMap, TopK, Variance,
};

use super::oracle::{Row, Value, int};

/// A function over columns, which are positions.
#[derive(Debug, Clone)]
pub(crate) enum Function {
    Rows,
    Count(usize),
    Sum(usize),
    Mean(usize),
    Min(usize),
    Max(usize),
    Distinct(usize),
    Sums(usize, Option<usize>),
    Top(usize, Option<usize>, usize),
    /// Of a population or a sample.
    Variance(usize, bool),
    StdDev(usize, bool),
    Any(usize),
    All(usize),
    /// A value, and what orders rows.
    First(usize, usize),
    Last(usize, usize),
    /// Descending or not, and the limit.
    Collect(usize, Option<usize>, bool, usize),
    Approximate(usize),
}

/// A condition on a row.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Compare(usize, Comparison, Value),
    In(usize, Vec<Value>),
    IsNull(usize),
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
}

/// A function over the rows for which a condition is true.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) function: Function,
    pub(crate) condition: Option<Condition>,
}

impl From<Function> for Asked {
    fn from(function: Function) -> Self {
        Self { function, condition: None }
    }
}

impl Asked {
    pub(crate) fn aggregator(&self, fields: &[Field]) -> Arc<dyn Aggregator> {
        let function = self.function.aggregator(fields);
        match &self.condition {
            None => function,
            Some(condition) => Arc::new(function.filter(condition.predicate(fields))),
        }
    }

    pub(crate) fn value(&self, fields: &[Field], rows: &[Row]) -> Value {
        match &self.condition {
            None => self.function.value(fields, rows),
            Some(condition) => {
                let kept: Vec<Row> = rows.iter().filter(|row| condition.holds(row) == Some(true)).cloned().collect();
                self.function.value(fields, &kept)
            }
        }
    }
}

impl Function {
    fn aggregator(&self, fields: &[Field]) -> Arc<dyn Aggregator> {
        let name = |at: usize| fields[at].name().as_str();
        match *self {
            Self::Rows => Arc::new(Count::rows()),
            Self::Count(at) => Arc::new(Count::of(name(at))),
            Self::Sum(at) => Arc::new(Sum::of(name(at))),
            Self::Mean(at) => Arc::new(Mean::of(name(at))),
            Self::Min(at) => Arc::new(Min::of(name(at))),
            Self::Max(at) => Arc::new(Max::of(name(at))),
            Self::Distinct(at) => Arc::new(CountDistinct::of(name(at))),
            Self::Sums(item, None) => Arc::new(SumMap::of(name(item))),
            Self::Sums(item, Some(weight)) => Arc::new(SumMap::of(name(item)).weighted_by(name(weight))),
            Self::Top(item, None, limit) => Arc::new(TopK::of(name(item)).with_limit(limit)),
            Self::Top(item, Some(weight), limit) => {
                Arc::new(TopK::of(name(item)).weighted_by(name(weight)).with_limit(limit))
            }
            Self::Variance(at, false) => Arc::new(Variance::of(name(at))),
            Self::Variance(at, true) => Arc::new(Variance::of(name(at)).population()),
            Self::StdDev(at, false) => Arc::new(StdDev::of(name(at))),
            Self::StdDev(at, true) => Arc::new(StdDev::of(name(at)).population()),
            Self::Any(at) => Arc::new(Any::of(name(at))),
            Self::All(at) => Arc::new(All::of(name(at))),
            Self::First(at, by) => Arc::new(First::of(name(at)).by(name(by))),
            Self::Last(at, by) => Arc::new(Last::of(name(at)).by(name(by))),
            Self::Collect(at, by, descending, limit) => {
                let collect = Collect::of(name(at)).with_limit(limit);
                let collect = if let Some(by) = by { collect.by(name(by)) } else { collect };
                Arc::new(if descending { collect.descending() } else { collect })
            }
            Self::Approximate(at) => Arc::new(ApproxCountDistinct::of(name(at))),
        }
    }

    /// Its result over rows.
    fn value(&self, fields: &[Field], rows: &[Row]) -> Value {
        let values = |at: usize| rows.iter().map(move |row| &row[at]).filter(|value| **value != Value::Null);
        match *self {
            Self::Rows => int(rows.len() as i128),
            Self::Count(at) => int(values(at).count() as i128),
            Self::Sum(at) => values(at).cloned().reduce(|sum, value| add(&sum, &value)).unwrap_or(Value::Null),
            Self::Mean(at) => {
                let scale = if let DataType::Decimal128(_, scale) = fields[at].data_type() { *scale } else { 0 };
                let sum = match Self::Sum(at).value(fields, rows) {
                    Value::Null => return Value::Null,
                    Value::Int(sum) => sum as f64 / 10_f64.powi(scale.into()),
                    other => float(&other),
                };
                Value::Float((sum / values(at).count() as f64).to_bits())
            }
            Self::Min(at) => {
                values(at).cloned().reduce(|a, b| if total(&b, &a) { b } else { a }).unwrap_or(Value::Null)
            }
            Self::Max(at) => {
                values(at).cloned().reduce(|a, b| if total(&a, &b) { b } else { a }).unwrap_or(Value::Null)
            }
            Self::Distinct(at) => int(values(at).collect::<BTreeSet<_>>().len() as i128),
            Self::Sums(item, weight) => Value::Many(
                sums(rows, item, weight).into_iter().map(|(item, sum)| Value::Many(vec![item, sum])).collect(),
            ),
            Self::Top(item, weight, limit) => {
                let mut ranked: Vec<(Value, Value)> = sums(rows, item, weight).into_iter().collect();
                // Stable: among equal sums the lesser item stays first.
                ranked.sort_by(|a, b| b.1.cmp(&a.1));
                Value::Many(ranked.into_iter().take(limit).map(|(item, sum)| Value::Many(vec![item, sum])).collect())
            }
            Self::Variance(at, population) => {
                let scale = if let DataType::Decimal128(_, scale) = fields[at].data_type() { *scale } else { 0 };
                let number = |value: &Value| match value {
                    Value::Int(value) => *value as f64 / 10_f64.powi(scale.into()),
                    other => float(other),
                };
                let all: Vec<f64> = values(at).map(number).collect();
                let (n, divisor) = (all.len() as f64, all.len() as f64 - if population { 0.0 } else { 1.0 });
                if divisor <= 0.0 {
                    return Value::Null;
                }
                // By the differences of all pairs: nothing cancels.
                let squares: f64 = all.iter().flat_map(|a| all.iter().map(move |b| (a - b) * (a - b))).sum();
                Value::Float((squares / 2.0 / n / divisor).to_bits())
            }
            Self::StdDev(at, population) => match Self::Variance(at, population).value(fields, rows) {
                Value::Null => Value::Null,
                variance => Value::Float(float(&variance).sqrt().to_bits()),
            },
            Self::Any(at) if values(at).next().is_none() => Value::Null,
            Self::Any(at) => Value::Bool(values(at).any(|value| *value == Value::Bool(true))),
            Self::All(at) if values(at).next().is_none() => Value::Null,
            Self::All(at) => Value::Bool(values(at).all(|value| *value == Value::Bool(true))),
            Self::First(at, by) => ordered(rows, at, by).into_iter().next().unwrap_or(Value::Null),
            Self::Last(at, by) => ordered(rows, at, by).into_iter().next_back().unwrap_or(Value::Null),
            Self::Collect(at, by, descending, limit) => {
                let mut all = ordered(rows, at, by.unwrap_or(at));
                if descending {
                    all.reverse();
                }
                all.truncate(limit);
                Value::Many(all)
            }
            // Few enough values for it to be exact.
            Self::Approximate(at) => Self::Distinct(at).value(fields, rows),
        }
    }
}

fn float(value: &Value) -> f64 {
    if let Value::Float(bits) = value { f64::from_bits(*bits) } else { panic!("not a float: {value:?}") }
}

fn add(a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a + b),
        _ => Value::Float((float(a) + float(b)).to_bits()),
    }
}

/// Whether a value comes before another one, −0.0 before 0.0.
fn total(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(_), Value::Float(_)) => float(a).total_cmp(&float(b)).is_lt(),
        _ => a < b,
    }
}

/// The values of a column by another one, among equals by value; without nulls in either.
fn ordered(rows: &[Row], at: usize, by: usize) -> Vec<Value> {
    let order = |a: &Value, b: &Value| {
        if total(a, b) {
            Ordering::Less
        } else if total(b, a) {
            Ordering::Greater
        } else {
            Ordering::Equal
        }
    };
    let mut pairs: Vec<(&Value, &Value)> = rows.iter().map(|row| (&row[by], &row[at])).collect();
    pairs.retain(|(by, value)| **by != Value::Null && **value != Value::Null);
    pairs.sort_by(|a, b| order(a.0, b.0).then_with(|| order(a.1, b.1)));
    pairs.into_iter().map(|(_, value)| value.clone()).collect()
}

fn sums(rows: &[Row], item: usize, weight: Option<usize>) -> BTreeMap<Value, Value> {
    let mut sums: BTreeMap<Value, Value> = BTreeMap::new();
    for row in rows {
        let weight = weight.map_or(int(1), |at| row[at].clone());
        if row[item] == Value::Null || weight == Value::Null {
            continue;
        }
        let sum = sums.get(&row[item]).map_or(weight.clone(), |sum| add(sum, &weight));
        sums.insert(row[item].clone(), sum);
    }
    sums
}

fn is_key_type(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Float64 | DataType::List(_) | DataType::Struct(_))
}

/// Whether all sums of any of these values fit the type that they are added up in.
fn sums_fit(data_type: &DataType, values: impl Iterator<Item = Value>) -> bool {
    let limit = match data_type {
        DataType::Float64 => return true,
        DataType::UInt64 => i128::from(u64::MAX),
        DataType::Decimal128(_, _) => 10_i128.pow(38) - 1,
        other if other.is_integer() => i128::from(i64::MAX),
        _ => return false,
    };
    let sizes = values.map(|value| if let Value::Int(v) = value { v.abs() } else { 0 });
    sizes.into_iter().try_fold(0_i128, i128::checked_add).is_some_and(|sum| sum <= limit)
}

/// Every function that these columns allow.
pub(crate) fn all_functions(fields: &[Field], rows: &[Row]) -> Vec<Function> {
    let addable: Vec<usize> = (0..fields.len())
        .filter(|&at| sums_fit(fields[at].data_type(), rows.iter().map(|row| row[at].clone())))
        .collect();
    let has_order = |at: &usize| is_key_type(fields[*at].data_type()) || *fields[*at].data_type() == DataType::Float64;
    let ordered: Vec<usize> = (0..fields.len()).rev().filter(has_order).collect();
    let mut all = vec![Function::Rows];
    for (at, field) in fields.iter().enumerate() {
        all.push(Function::Count(at));
        if addable.contains(&at) {
            all.extend([Function::Sum(at), Function::Mean(at)]);
            all.push(if at % 2 == 0 { Function::Variance(at, at % 4 == 0) } else { Function::StdDev(at, at % 4 == 1) });
        }
        if *field.data_type() == DataType::Boolean {
            all.extend([Function::Any(at), Function::All(at)]);
        }
        if let Some(&by) = ordered.get(at % ordered.len().max(1)) {
            all.push(if at % 2 == 0 { Function::First(at, by) } else { Function::Last(at, by) });
            all.push(Function::Collect(at, Some(by), at % 4 > 1, 1 + at % 3));
        }
        if is_key_type(field.data_type()) || *field.data_type() == DataType::Float64 {
            all.extend([Function::Min(at), Function::Max(at), Function::Collect(at, None, at % 2 == 0, at % 5)]);
        }
        if is_key_type(field.data_type()) {
            if rows.iter().map(|row| &row[at]).collect::<BTreeSet<_>>().len() < 200 {
                all.push(Function::Approximate(at));
            }
            all.extend([Function::Distinct(at), Function::Sums(at, None), Function::Top(at, None, at % 4)]);
            if let Some(&weight) = addable.get(at % addable.len().max(1)) {
                all.push(Function::Sums(at, Some(weight)));
                // Rounding would decide the order of sums.
                if *fields[weight].data_type() != DataType::Float64 {
                    all.push(Function::Top(at, Some(weight), 1 + at % 3));
                }
            }
        }
    }
    all
}

/// One row per key: key and results.
pub(crate) fn aggregate(fields: &[Field], keys: usize, rows: &[Row], asked: &[Asked]) -> Vec<Row> {
    let mut groups: BTreeMap<Row, Vec<Row>> = BTreeMap::new();
    for row in rows {
        groups.entry(row[..keys].to_vec()).or_default().push(row.clone());
    }
    let results = |(key, rows): (Row, Vec<Row>)| {
        key.into_iter().chain(asked.iter().map(|asked| asked.value(fields, &rows))).collect()
    };
    groups.into_iter().map(results).collect()
}

/// Asserts that rows are equal, floats up to rounding.
pub(crate) fn assert_same(found: &[Row], expected: &[Row], asked: &[Asked]) {
    assert_eq!(found.len(), expected.len(), "found {found:?}, expected {expected:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len());
        for (at, (a, b)) in found.iter().zip(expected).enumerate() {
            let of = (at + asked.len()).checked_sub(found.len()).map(|at| &asked[at]);
            assert!(same(a, b), "{of:?} of {found:?}: found {a:?}, expected {b:?}");
        }
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(x), Value::Float(y)) => {
            let (p, q) = (f64::from_bits(*x), f64::from_bits(*y));
            x == y || p.is_nan() && q.is_nan() || (p - q).abs() <= 1e-9 * q.abs()
        }
        (Value::Many(a), Value::Many(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

impl Condition {
    /// SQL's three values.
    pub(crate) fn holds(&self, row: &Row) -> Option<bool> {
        match self {
            Self::Compare(at, _, _) if row[*at] == Value::Null => None,
            Self::Compare(at, comparison, value) => {
                let order = match (&row[*at], value) {
                    (Value::Float(_), Value::Float(_)) => {
                        let (a, b) = (float(&row[*at]), float(value));
                        a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
                    }
                    (a, b) => a.cmp(b),
                };
                Some(match comparison {
                    Comparison::Eq => order.is_eq(),
                    Comparison::NotEq => order.is_ne(),
                    Comparison::Lt => order.is_lt(),
                    Comparison::LtEq => order.is_le(),
                    Comparison::Gt => order.is_gt(),
                    Comparison::GtEq => order.is_ge(),
                    other => panic!("no such comparison: {other:?}"),
                })
            }
            Self::In(at, values) => {
                let any = values.iter().map(|value| Self::Compare(*at, Comparison::Eq, value.clone()));
                Self::Or(any.collect()).holds(row)
            }
            Self::IsNull(at) => Some(row[*at] == Value::Null),
            Self::And(all) => match all.iter().map(|one| one.holds(row)).collect::<Vec<_>>() {
                some if some.contains(&Some(false)) => Some(false),
                some if some.contains(&None) => None,
                _ => Some(true),
            },
            Self::Or(all) => match all.iter().map(|one| one.holds(row)).collect::<Vec<_>>() {
                some if some.contains(&Some(true)) => Some(true),
                some if some.contains(&None) => None,
                _ => Some(false),
            },
            Self::Not(inner) => inner.holds(row).map(|holds| !holds),
        }
    }

    pub(crate) fn predicate(&self, fields: &[Field]) -> Predicate {
        let name = |at: usize| fields[at].name().clone();
        let own = |at: usize, value: &Value| literal(fields[at].data_type(), value).unwrap().0;
        let all = |all: &[Self]| all.iter().map(|one| one.predicate(fields)).collect();
        match self {
            Self::Compare(at, comparison, value) => {
                Predicate::Compare { column: name(*at), comparison: *comparison, literal: own(*at, value) }
            }
            Self::In(at, values) => {
                Predicate::In { column: name(*at), literals: values.iter().map(|value| own(*at, value)).collect() }
            }
            Self::IsNull(at) => Predicate::is_null(name(*at)),
            Self::And(parts) => Predicate::And(all(parts)),
            Self::Or(parts) => Predicate::Or(all(parts)),
            Self::Not(inner) => inner.predicate(fields).negate(),
        }
    }
}

/// The literal closest to a value of a type, and its own value.
fn literal(data_type: &DataType, value: &Value) -> Option<(Literal, Value)> {
    let exact = |literal: Literal| Some((literal, value.clone()));
    let time = |time: Option<_>| time.and_then(|time| exact(Literal::Timestamp(time)));
    match (data_type, value) {
        (_, Value::Bool(v)) => exact((*v).into()),
        (_, Value::Text(v)) => exact(v.as_str().into()),
        (_, Value::Bytes(v)) => exact(v.as_slice().into()),
        (_, Value::Float(v)) => exact(f64::from_bits(*v).into()),
        (DataType::Date32, Value::Int(v)) => {
            exact((NaiveDate::default() + TimeDelta::days(i64::try_from(*v).ok()?)).into())
        }
        (DataType::Timestamp(unit, _), Value::Int(v)) => {
            let v = i64::try_from(*v).ok()?;
            match unit {
                TimeUnit::Second => None,
                TimeUnit::Millisecond => time(DateTime::from_timestamp_millis(v)),
                TimeUnit::Microsecond => time(DateTime::from_timestamp_micros(v)),
                TimeUnit::Nanosecond => time(Some(DateTime::from_timestamp_nanos(v))),
            }
        }
        (DataType::Decimal128(_, scale), Value::Int(v)) => {
            let unit = 10_i128.pow(u32::try_from(*scale).ok()?);
            let whole = i64::try_from(v / unit).ok()?;
            Some((whole.into(), int(i128::from(whole) * unit)))
        }
        (_, Value::Int(v)) => match (i64::try_from(*v), u64::try_from(*v)) {
            (Ok(v), _) => exact(v.into()),
            (_, Ok(v)) => exact(v.into()),
            _ => None,
        },
        _ => None,
    }
}

/// A condition before the columns are known: numbers that choose among them.
#[derive(Debug, Clone)]
pub(crate) enum Recipe {
    Compare(usize, usize, usize),
    In(usize, Vec<usize>),
    IsNull(usize),
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
}

pub(crate) fn recipes() -> impl Strategy<Value = Recipe> {
    let number = 0..1000_usize;
    let leaf = prop_oneof![
        4 => (number.clone(), number.clone(), number.clone()).prop_map(|(at, how, value)| Recipe::Compare(at, how, value)),
        1 => (number.clone(), prop::collection::vec(number.clone(), 0..4)).prop_map(|(at, values)| Recipe::In(at, values)),
        1 => number.prop_map(Recipe::IsNull),
    ];
    leaf.prop_recursive(3, 10, 3, |inner| {
        let some = prop::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            some.clone().prop_map(Recipe::And),
            some.prop_map(Recipe::Or),
            inner.prop_map(|inner| Recipe::Not(Box::new(inner))),
        ]
    })
}

impl Recipe {
    /// The condition on these columns, its literals among the values in these rows.
    pub(crate) fn condition(&self, fields: &[Field], rows: &[Row]) -> Condition {
        let all = |all: &[Self]| all.iter().map(|one| one.condition(fields, rows)).collect();
        let value = |at: usize, pick: usize| -> Option<Value> {
            let row = rows.get(pick % rows.len().max(1))?;
            literal(fields[at].data_type(), &row[at]).map(|(_, value)| value)
        };
        use Comparison as C;
        match self {
            Self::Compare(at, how, pick) => {
                let at = at % fields.len();
                let how = [C::Eq, C::NotEq, C::Lt, C::LtEq, C::Gt, C::GtEq][how % 6];
                value(at, *pick).map_or(Condition::IsNull(at), |value| Condition::Compare(at, how, value))
            }
            Self::In(at, picks) => {
                let at = at % fields.len();
                Condition::In(at, picks.iter().filter_map(|pick| value(at, *pick)).collect())
            }
            Self::IsNull(at) => Condition::IsNull(at % fields.len()),
            Self::And(parts) => Condition::And(all(parts)),
            Self::Or(parts) => Condition::Or(all(parts)),
            Self::Not(inner) => Condition::Not(Box::new(inner.condition(fields, rows))),
        }
    }
}
