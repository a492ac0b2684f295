//! Steps 1 and 2: listening is simulated week by week and written as raw events.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::calendar::{HOURS_PER_WEEK, Week};
use crate::options::Options;
use crate::raw::{self, Kind, Raw};
use crate::report::{Step, progress};
use crate::simulate::{self, Simulation};

/// Users that one thread simulates at a time.
const USERS_AT_ONCE: u32 = 256;

/// Simulates and writes what is not there yet, one week at a time in memory.
pub(crate) fn write(options: &Options, raw: &Raw) -> Result<[Step; 2], Failure> {
    let simulation = Simulation::new(options.seed, options.users);
    let bar = progress("raw events", options.weeks);
    let (mut kept, mut rows, mut bytes_written) = (0, [0; 2], 0);
    let (mut simulating, mut writing) = (Duration::ZERO, Duration::ZERO);
    for week in Week::first(options.weeks) {
        if raw.is_complete(week) {
            kept += 1;
            bar.inc(1);
            continue;
        }
        let started = Instant::now();
        let parts = in_parallel(options.users.div_ceil(USERS_AT_ONCE) as usize, |part| {
            let first = part as u32 * USERS_AT_ONCE + 1;
            let last = options.users.min(first - 1 + USERS_AT_ONCE);
            Ok(simulation.week(week, first..=last))
        })?;
        simulating += started.elapsed();

        let started = Instant::now();
        let files = in_parallel(HOURS_PER_WEEK as usize, |hour| {
            let mut plays: Vec<_> = parts.iter().flat_map(|hours| &hours[hour]).copied().collect();
            simulate::sort_by_time(&mut plays);
            let batches = [(Kind::Plays, simulate::plays(&plays)?), (Kind::Contexts, simulate::contexts(&plays)?)];
            let (mut rows, mut bytes) = ([0; 2], 0);
            for ((kind, batch), rows) in batches.iter().zip(&mut rows) {
                let path = raw.hour(*kind, week, hour as u32);
                *rows = batch.num_rows() as u64;
                if *rows > 0 && !path.exists() {
                    bytes += raw::write(&path, *kind, batch)?;
                }
            }
            Ok((rows, bytes))
        })?;
        for ([plays, contexts], bytes) in files {
            rows = [rows[0] + plays, rows[1] + contexts];
            bytes_written += bytes;
        }
        raw.complete(week)?;
        writing += started.elapsed();
        bar.inc(1);
    }
    let started = Instant::now();
    if let Some(week) = options.late {
        let number = (1..).find(|number| !raw.late(Kind::Plays, week, *number).exists()).unwrap_or(1);
        let plays = simulate::plays(&simulation.late(week, number))?;
        if plays.num_rows() > 0 {
            rows[0] += plays.num_rows() as u64;
            bytes_written += raw::write(&raw.late(Kind::Plays, week, number), Kind::Plays, &plays)?;
        }
    }
    let mut users = 0;
    if !raw.users().exists() {
        let batch = simulation.users()?;
        users = batch.num_rows() as u64;
        bytes_written += raw::write(&raw.users(), Kind::Users, &batch)?;
    }
    writing += started.elapsed();
    bar.finish_and_clear();

    let remark = match kept {
        0 => String::new(),
        _ => format!("{kept} of {} weeks were there", options.weeks),
    };
    let simulated = Step { name: "simulate", rows: rows[0], time: simulating, ..Step::default() };
    let rows = rows[0] + rows[1] + users;
    Ok([simulated, Step { name: "raw events", rows, bytes_written, time: writing, remark, ..Step::default() }])
}

/// Does pieces of work 0 .. `count` on all processors; the results are in order.
fn in_parallel<R: Send>(count: usize, work: impl Fn(usize) -> Result<R, Failure> + Sync) -> Result<Vec<R>, Failure> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, R)>, Failure> {
        let mut done = vec![];
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= count {
                return Ok(done);
            }
            done.push((piece, work(piece)?));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
    let mut done = std::thread::scope(|scope| -> Result<Vec<(usize, R)>, Failure> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut done = Vec::with_capacity(count);
        for worker in workers {
            done.extend(worker.join().map_err(|_| "a thread panicked")??);
        }
        Ok(done)
    })?;
    done.sort_unstable_by_key(|(piece, _)| *piece);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
