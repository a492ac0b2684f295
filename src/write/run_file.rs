//! One run on its way into the store: an encoder that computes on a thread of a crew and an upload that takes what it has finished. Both are kept
//! account of in the books of the whole write.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tracing::{Instrument, Span};

use crate::error::{Error, Result};
use crate::manifest::Run;
use crate::task::Seat;
use crate::write::progress::Feedback;
use crate::write::run_encoder::{RunEncoder, RunTarget};
use crate::write::upload::Upload;

/// Writes one run from sorted rows.
///
/// Nothing is visible in the store before [`close`](Self::close), and nothing of the dataset before a commit names the run. After an
/// error only [`abort`](Self::abort) is of use. Dropping it gives up the upload.
#[derive(Debug)]
pub(crate) struct RunFileWriter {
    /// Absent after a failure.
    encoder: Option<RunEncoder>,
    upload: Upload,
    seat: Seat,
    feedback: Feedback,
    span: Span,
}

impl RunFileWriter {
    /// Begins a run of `bucket`.
    pub(crate) fn new(target: &RunTarget, bucket: u32, run_id: &str, feedback: &Feedback, seat: Seat) -> Result<Self> {
        let encoder = RunEncoder::new(target, bucket, run_id)?;
        let place = target.place();
        let upload = Upload::new(Arc::clone(&place.store), place.layout.run(encoder.path()));
        let (feedback, span) = (feedback.clone(), feedback.encode_span(bucket));
        Ok(Self { encoder: Some(encoder), upload, seat, feedback, span })
    }

    /// Adds rows: canonical, of this bucket, in the order of the spec.
    ///
    /// # Errors
    /// `Unsorted` if a row is less than the one before it, naming path, row and both keys; `Store` if the upload fails.
    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut encoder = self.encoder.take().ok_or_else(failed)?;
        let (batch, rows) = (batch.clone(), batch.num_rows() as u64);
        let encode = move || {
            encoder.write(&batch)?;
            let bytes = encoder.take_bytes()?;
            Ok((encoder, bytes))
        };
        let work = async {
            let (encoder, bytes) = self.seat.run(encode).await?;
            self.upload.push(bytes).await?;
            Ok::<_, Error>(encoder)
        };
        self.encoder = Some(work.instrument(self.span.clone()).await?);
        self.feedback.encoded(rows, self.upload.newly_stored());
        Ok(())
    }

    /// Completes the run. Without rows nothing is uploaded, and there is no run.
    pub(crate) async fn close(mut self) -> Result<Option<Run>> {
        let encoder = self.encoder.take().ok_or_else(failed)?;
        let finished = match self.seat.run(move || encoder.finish()).instrument(self.span.clone()).await {
            Ok(Some(finished)) => finished,
            Ok(None) => return Ok(None),
            Err(e) => {
                self.upload.abort().await;
                return Err(e);
            }
        };
        let (bytes, run) = finished;
        if let Err(e) = self.upload.push(bytes).await {
            self.upload.abort().await;
            return Err(e);
        }
        self.span.record("rows", run.rows).record("bytes", run.bytes);
        let uploaded = self.upload.finish().instrument(self.feedback.upload_span(&run)).await?;
        self.feedback.uploaded(uploaded);
        Ok(Some(run))
    }

    /// Gives up the run.
    pub(crate) async fn abort(self) {
        self.upload.abort().await;
    }
}

fn failed() -> Error {
    Error::internal("a run was written to after a failed write")
}
