//! Bodies on their way through: counted, bounded in size, rate and silence, never gathered.
//!
//! [`Upload`] goes from client to endpoint, [`Download`] from endpoint (or from ourselves) to the client. Frames pass one by one as they
//! come, trailers too; nothing is held back, so server-sent events and long polls are as prompt as their endpoint.

mod download;
mod kept;
mod stalls;
mod upload;

pub use download::{Download, DownloadError};
pub(crate) use kept::Kept;
pub use stalls::StreamStall;
pub use upload::{Progress, Stage, Upload, UploadError, UploadLimits};
