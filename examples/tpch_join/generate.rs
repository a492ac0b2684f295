//! TPC-H rows, out of order, and what the queries must answer for them.
//!
//! Each table is made by [`PARTS`] generators that count through their own range of keys. One batch is taken from each in turn,
//! so that the writer meets every key range all the time. A thread of its own generates ahead of the writer, and works out the right
//! answers on the way, from the rows themselves and with nothing of the library.

use std::thread::JoinHandle;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, SchemaRef};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tpchgen::generators::{LineItemGenerator, OrderGenerator};
use tpchgen_arrow::{LineItemArrow, OrderArrow, RecordBatchIterator};

use crate::Failure;
use crate::query::{Answer, Query, Value};

/// Generators per table. Part i of both tables holds the same orders.
const PARTS: i32 = 16;
/// Batches that may be ready before the writer takes them.
const AHEAD: usize = 4;

/// What a query must answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Expected {
    pub(crate) orders: Answer,
    pub(crate) lineitem: Answer,
    pub(crate) join: Answer,
}

/// What both queries must answer, in the order of [`Query::ALL`], as the generators count it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) expected: [Expected; 2],
    /// Per part, in key order: order key and total price.
    prices: Vec<Vec<(i64, i128)>>,
    /// Per part, the order of the line seen last.
    current: Vec<usize>,
    /// The sum of the order's total price over all lines: what a join sees.
    joined_price: i128,
}

impl Ledger {
    fn observe_orders(&mut self, part: usize, batch: &RecordBatch) -> Result<(), Failure> {
        for (query, expected) in Query::ALL.into_iter().zip(&mut self.expected) {
            query.reduce(&mut expected.orders, batch)?;
        }
        let keys = column(batch, "o_orderkey")?.as_primitive::<Int64Type>().values();
        let prices = column(batch, "o_totalprice")?.as_primitive::<Decimal128Type>().values();
        self.prices.resize(PARTS as usize, vec![]);
        self.prices[part].extend(keys.iter().copied().zip(prices.iter().copied()));
        Ok(())
    }

    /// Both tables count through the same keys, so that the order of a line is the current one or one of the next.
    fn observe_lineitem(&mut self, part: usize, batch: &RecordBatch) -> Result<(), Failure> {
        for (query, expected) in Query::ALL.into_iter().zip(&mut self.expected) {
            query.reduce(&mut expected.lineitem, batch)?;
        }
        self.current.resize(PARTS as usize, 0);
        let (orders, current) = (&self.prices[part], &mut self.current[part]);
        for key in column(batch, "l_orderkey")?.as_primitive::<Int64Type>().values() {
            while orders.get(*current).ok_or("the generator made a line without an order")?.0 != *key {
                *current += 1;
            }
            self.joined_price += orders[*current].1;
        }
        Ok(())
    }

    /// What the queries must answer, once both tables are generated.
    pub(crate) fn finish(mut self) -> [Expected; 2] {
        for (query, expected) in Query::ALL.into_iter().zip(&mut self.expected) {
            let Expected { orders, lineitem, join } = expected;
            // An order has one to seven lines: no row of either table is without a partner, a line's only partner is its order.
            join.clone_from(lineitem);
            query.add(join, orders.clone());
            join.rows = lineitem.rows;
            match query {
                Query::Narrow => join.columns.insert("o_totalprice".into(), Value::Number(self.joined_price)),
                // The join has the key once, under the left side's name.
                Query::Wide => join.columns.remove("l_orderkey"),
            };
        }
        std::mem::take(&mut self.expected)
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef, Failure> {
    Ok(batch.column_by_name(name).ok_or_else(|| format!("the generator made no column {name}"))?)
}

/// A table that a thread is generating.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) schema: SchemaRef,
    /// About the number of rows to come.
    pub(crate) rows: u64,
    pub(crate) batches: mpsc::Receiver<RecordBatch>,
    thread: JoinHandle<Result<Ledger, Failure>>,
}

impl Feed {
    /// Starts to generate orders.
    pub(crate) fn orders(scale_factor: f64) -> Self {
        let part = move |i| OrderArrow::new(OrderGenerator::new(scale_factor, i, PARTS));
        Self::start(orders_count(scale_factor), part, Ledger::default(), Ledger::observe_orders)
    }

    /// Starts to generate lineitem, with the ledger that generating orders returned.
    pub(crate) fn lineitem(scale_factor: f64, ledger: Ledger) -> Self {
        let part = move |i| LineItemArrow::new(LineItemGenerator::new(scale_factor, i, PARTS));
        Self::start(4 * orders_count(scale_factor), part, ledger, Ledger::observe_lineitem)
    }

    fn start<I: RecordBatchIterator + 'static>(
        rows: u64,
        part: impl Fn(i32) -> I,
        mut ledger: Ledger,
        observe: impl Fn(&mut Ledger, usize, &RecordBatch) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        // The highest keys first: even where a part is a single batch, keys do not arrive in order.
        let mut parts: Vec<(usize, I)> = (0..PARTS).rev().map(|i| (i as usize, part(i + 1))).collect();
        let schema = SchemaRef::clone(parts[0].1.schema());
        let (sender, batches) = mpsc::channel(AHEAD);
        let thread = std::thread::spawn(move || {
            while !parts.is_empty() {
                let mut i = 0;
                while i < parts.len() {
                    let (part, generator) = &mut parts[i];
                    let Some(batch) = generator.next() else {
                        parts.remove(i);
                        continue;
                    };
                    observe(&mut ledger, *part, &batch)?;
                    // Nobody listens any more if the write failed, which is then the error to report.
                    if sender.blocking_send(batch).is_err() {
                        return Ok(ledger);
                    }
                    i += 1;
                }
            }
            Ok(ledger)
        });
        Self { schema, rows, batches, thread }
    }

    /// The ledger, once all batches are taken.
    pub(crate) fn finish(self) -> Result<Ledger, Failure> {
        let Self { schema: _, rows: _, batches, thread } = self;
        drop(batches);
        thread.join().map_err(|_| "the generator panicked")?
    }
}

fn orders_count(scale_factor: f64) -> u64 {
    (1..=PARTS).map(|i| OrderGenerator::calculate_row_count(scale_factor, i, PARTS) as u64).sum()
}
