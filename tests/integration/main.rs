//! The integration tests, one binary: everything through the crate's public interface alone.
//!
//! * `support`: random data (`data`), an independent engine over plain values (`oracle`, `aggregates`), the kinds of stores that tests run on (`places`),
//!   an S3 server (`s3`), stores that record and fail (`stores`), clients that fail (`faulty`) or take turns (`gated`), versions as their manifests say
//!   (`history`), rows that tell their write (`named`), bytes of runs and manifests made by hand (`forge`), damages generated (`mutations`).
//! * `stores`: what holds on every kind of store; `requests`: what goes over the wire; `secrets`: what must not be told.
//! * `joins`, `cogroups`, `sources`, `plans`, `aggregates`, `transform`: what plans return, against the oracle.
//! * `selections`: sources restricted to some rows, and slots cut into key ranges.
//! * `rollups`: partials per period, merged in every way, made again, and refused; `refresh`: what of them is stale, and only that made anew.
//! * `laws`: equalities that hold whatever the data are.
//! * `wrong_answers`: the ways in which such systems are known to return wrong rows, one test each.
//! * `io_patterns`: which requests a plan makes; `damage`: every byte, value and run damaged; `hostile`: damaged bytes under joins.
//! * `commit`: commits as callers see them; `faults`: each of them under every fault at every request; `races`: many at once, in all orders; `vacuum`: what
//!   goes and what stays; `soak`: all of it together for a while.
//! * `format`: the examples and known answers of docs/format.md; `invariants`: each of its numbered invariants, broken.
//! * `regressions`: bugs that once were; `errors`: every kind of error, printed.
//!
//! Families by name: `oracle_*` against an obvious implementation, `law_*` algebra, `differential_*` two ways of our own.

#[cfg(test)]
mod aggregates;
#[cfg(test)]
mod cogroups;
#[cfg(test)]
mod commit;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod format;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod io_patterns;
#[cfg(test)]
mod joins;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod races;
#[cfg(test)]
mod refresh;
#[cfg(test)]
mod regressions;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod rollups;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod selections;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transform;
#[cfg(test)]
mod vacuum;
#[cfg(test)]
mod wrong_answers;
