//! Every bound of the API's side on time and number, with its reason.

use std::time::Duration;

/// Secrets that are followed by name. Each takes a connection to the API server; who has more lets all be followed with one.
pub const SECRET_WATCHES: usize = 256;
/// First and longest pause before a Secret that could not be read is asked for again.
pub const SECRET_RETRY_FIRST: Duration = Duration::from_millis(200);
pub const SECRET_RETRY_LONGEST: Duration = Duration::from_secs(10);
/// A watch on a Secret that lasted so long counts as well again.
pub const SECRET_RETRY_FORGET: Duration = Duration::from_secs(30);
/// How long a new table waits for the first answer about Secrets that it names: at the start, and later. The API answers in
/// milliseconds; a table with the wrong certificate is worse than one that is late, and none at all is worse than both.
pub const SECRETS_SETTLE_FIRST: Duration = Duration::from_secs(10);
pub const SECRETS_SETTLE: Duration = Duration::from_millis(300);

/// Length of a watch; it goes on where it ended. Short, for a connection whose other end died without a word shows only then.
pub const WATCH_SECONDS: u32 = 60;
/// First and longest pause before a failed watch is tried again. The API balancer on this node finds another server within seconds.
pub const WATCH_FIRST_PAUSE: Duration = Duration::from_millis(200);
/// See [`WATCH_FIRST_PAUSE`].
pub const WATCH_LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A watch that lasted so long counts as well again; one that fails again sooner waits longer each time.
pub const WATCH_FORGET: Duration = Duration::from_secs(30);
/// Longest silence within a streamed list before pages are asked for (client-go waits 10 s too).
pub const LIST_PATIENCE: Duration = Duration::from_secs(10);
/// Events read ahead of those that were worked in. More would only be memory: the API server waits.
pub const CHANGES_WAITING: usize = 256;
/// Tables after which everything that none has any more is looked for: it takes half a millisecond with 10,000 Services.
pub const SWEEP_EVERY: u32 = 64;
/// Longest pause between two tables.
pub const REBUILD_LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How often the addresses in status are looked at, and the Lease is renewed: a third of its length.
pub const STATUS_PERIOD: Duration = Duration::from_secs(5);
/// Longest time for one round, so that a Lease is not believed to be ours after its end.
pub const STATUS_ROUND: Duration = Duration::from_secs(10);
/// How long other addresses must last before they replace those in status. A rolling upgrade takes each node's proxy away for a moment.
pub const STATUS_SETTLE: Duration = Duration::from_secs(10);
/// Status writes per round, and the pause between two: 20 per second leave the API server to others, and 10,000 Ingresses take minutes.
pub const STATUS_WRITES: usize = 80;
/// See [`STATUS_WRITES`].
pub const STATUS_PAUSE: Duration = Duration::from_millis(50);
/// Events per round: 2 per second. The rest follows in the next rounds.
pub const EVENTS_PER_ROUND: usize = 10;
/// Remarks that become Events at all. Whoever has more reads the dashboard; etcd need not hold them.
pub const EVENTS_KNOWN: usize = 1000;
/// Longest text of an Event (the API's own bound is 1024 bytes).
pub const EVENT_NOTE_BYTES: usize = 1000;
