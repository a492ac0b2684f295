//! Raw events as an event-delivery system leaves them: Avro files in hourly partitions, in order of time.
//!
//! ```text
//! raw/plays/date=2025-01-06/hour=07.avro
//! raw/plays/date=2025-01-06/_SUCCESS
//! raw/plays/date=2025-01-06/late-01.avro
//! raw/contexts/date=2025-01-06/hour=07.avro
//! raw/users/users.avro
//! ```
//!
//! A file gets its name when it is complete. An hour without rows has no file: not every Avro reader takes one without rows. Therefore a day
//! has a marker when all its files are there.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_avro::codec::Tz;
use arrow_avro::compression::CompressionCodec;
use arrow_avro::reader::{Reader, ReaderBuilder};
use arrow_avro::schema::AVRO_NAME_METADATA_KEY;
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroOcfFormat;
use sort_merge_bucket::DEFAULT_BATCH_SIZE;
use sort_merge_bucket::chrono::NaiveDate;

use crate::Failure;
use crate::calendar::{HOURS_PER_WEEK, Week};
use crate::simulate;

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plays,
    Contexts,
    Users,
}

impl Kind {
    /// Of the raw folder and of the dataset.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Plays => "plays",
            Self::Contexts => "contexts",
            Self::Users => "users",
        }
    }

    pub(crate) fn schema(self) -> &'static SchemaRef {
        match self {
            Self::Plays => &simulate::PLAYS,
            Self::Contexts => &simulate::CONTEXTS,
            Self::Users => &simulate::USERS,
        }
    }

    /// The name of the Avro record.
    fn record(self) -> &'static str {
        match self {
            Self::Plays => "Play",
            Self::Contexts => "Context",
            Self::Users => "User",
        }
    }
}

/// The folder of raw events.
#[derive(Debug, Clone)]
pub(crate) struct Raw(PathBuf);

impl Raw {
    pub(crate) const FOLDER: &str = "raw";

    pub(crate) fn new(out: &Path) -> Self {
        Self(out.join(Self::FOLDER))
    }

    /// The file of one hour of a week.
    pub(crate) fn hour(&self, kind: Kind, week: Week, hour: u32) -> PathBuf {
        let (date, hour) = week.day_and_hour(hour);
        self.day(kind, date).join(format!("hour={hour:02}.avro"))
    }

    /// The files of a week that is complete, in order of time, then those that came late, in the order in which they came.
    pub(crate) fn week(&self, kind: Kind, week: Week) -> Vec<PathBuf> {
        let hours = (0..HOURS_PER_WEEK).map(|hour| self.hour(kind, week, hour));
        let late = (1..).map(|number| self.late(kind, week, number)).take_while(|path| path.exists());
        hours.filter(|path| path.exists()).chain(late).collect()
    }

    /// A file of events that came when their week was complete, counted from 1.
    pub(crate) fn late(&self, kind: Kind, week: Week, number: u32) -> PathBuf {
        self.day(kind, week.day_and_hour(0).0).join(format!("late-{number:02}.avro"))
    }

    pub(crate) fn is_complete(&self, week: Week) -> bool {
        self.markers(week).all(|marker| marker.exists())
    }

    /// Tells that all files of a week are there.
    pub(crate) fn complete(&self, week: Week) -> Result<(), Failure> {
        for marker in self.markers(week) {
            write_whole(&marker, &[])?;
        }
        Ok(())
    }

    fn markers(&self, week: Week) -> impl Iterator<Item = PathBuf> {
        let days = (0..HOURS_PER_WEEK).step_by(24).map(move |hour| week.day_and_hour(hour).0);
        days.flat_map(|date| [Kind::Plays, Kind::Contexts].map(|kind| self.day(kind, date).join("_SUCCESS")))
    }

    fn day(&self, kind: Kind, date: NaiveDate) -> PathBuf {
        self.0.join(kind.folder()).join(format!("date={date}"))
    }

    pub(crate) fn users(&self) -> PathBuf {
        self.0.join(Kind::Users.folder()).join("users.avro")
    }
}

/// Writes a file of one batch and returns its bytes.
pub(crate) fn write(path: &Path, kind: Kind, rows: &RecordBatch) -> Result<u64, Failure> {
    let named = [(AVRO_NAME_METADATA_KEY.to_owned(), kind.record().to_owned())];
    let schema = Schema::new_with_metadata(kind.schema().fields().clone(), named.into());
    let mut writer = WriterBuilder::new(schema)
        .with_compression(Some(CompressionCodec::Deflate))
        .build::<_, AvroOcfFormat>(Vec::<u8>::new())?;
    // A block for every batch.
    for start in (0..rows.num_rows()).step_by(DEFAULT_BATCH_SIZE) {
        writer.write(&rows.slice(start, DEFAULT_BATCH_SIZE.min(rows.num_rows() - start)))?;
    }
    writer.finish()?;
    let bytes = writer.into_inner();
    write_whole(path, &bytes)?;
    Ok(bytes.len() as u64)
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let unfinished = path.with_extension("unfinished");
    fs::create_dir_all(path.parent().ok_or("a file is in a folder")?)?;
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)?;
    Ok(())
}

/// Reads a file in batches of at most [`DEFAULT_BATCH_SIZE`] rows.
pub(crate) fn read(path: &Path) -> Result<Reader<BufReader<File>>, Failure> {
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(ReaderBuilder::new()
        .with_batch_size(DEFAULT_BATCH_SIZE)
        .with_utf8_view(true)
        .with_tz(Tz::Utc)
        .build(BufReader::new(file))?)
}
