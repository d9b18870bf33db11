//! Passes the events of a command to the terminal, the log and the report.

use crate::args::Output;
use crate::output::{PRIVATE, write_stderr, write_stdout, write_whole};
use crate::render;
use landfall_core::event::{Event, EventKind, EventSink};
use landfall_core::explain::{Diagnosis, ExitCode};
use landfall_core::report::Report;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The event sink of one command.
pub struct Reporter {
    output: Output,
    screen: Box<dyn EventSink>,
    log: Option<render::Log>,
    folder: Option<PathBuf>,
    report: Mutex<Report>,
}

impl Reporter {
    /// Prepares to show events as `output` says, and to log them when there is a folder for the report.
    pub fn new(output: Output, folder: Option<&Path>) -> Result<Arc<Self>, Vec<Diagnosis>> {
        let log = folder.map(render::Log::open).transpose().map_err(|d| vec![d])?;
        Ok(Arc::new(Self {
            output,
            screen: render::screen(output),
            log,
            folder: folder.map(Path::to_owned),
            report: Mutex::default(),
        }))
    }

    /// Emits warnings from before the command began.
    pub fn warn(&self, notices: &[String]) {
        for text in notices {
            let kind = EventKind::Warning { text: text.clone() };
            self.emit(Event {
                at_ms: 0,
                node: None,
                kind,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the report of the events so far.
    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    /// Writes the report into its folder, when there is one, under the command's name, for instance `install.json`.
    pub fn write(&self) -> Result<(), Diagnosis> {
        let report = self.report();
        let (Some(folder), Some(command)) = (&self.folder, report.command) else {
            return Ok(());
        };
        let text = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
        write_whole(&folder.join(format!("{command}.json")), text.as_bytes(), PRIVATE)
    }

    /// Shows errors and residue, or the last line of JSON. `problems` are errors from after the end of the engine. Returns the exit code.
    pub fn close(&self, problems: Vec<Diagnosis>) -> ExitCode {
        let mut report = self.report();
        for problem in problems {
            report.end(problem.code.exit_code());
            report.add_error(problem);
        }
        let exit = report.outcome.unwrap_or(ExitCode::Internal);
        if self.output == Output::Json {
            write_stdout(&render::result_line(&report));
            return exit;
        }
        write_stderr(&render::errors(&report.errors));
        for line in &report.residue {
            write_stderr(&format!("left behind: {line}\n"));
        }
        if let (Some(log), true) = (&self.log, exit != ExitCode::Done) {
            write_stderr(&format!("all events are in {}\n", log.path().display()));
        }
        exit
    }
}

impl EventSink for Reporter {
    fn emit(&self, event: Event) {
        self.lock().add(&event);
        if let Some(log) = &self.log {
            log.write(&event);
        }
        self.screen.emit(event);
    }
}

/// Shows why a command was refused before it began; returns the exit code.
pub fn refuse(output: Output, errors: Vec<Diagnosis>) -> ExitCode {
    write_stderr(&render::errors(&errors));
    let mut report = Report::default();
    for error in errors {
        report.end(error.code.exit_code());
        report.add_error(error);
    }
    if output == Output::Json {
        write_stdout(&render::result_line(&report));
    }
    report.outcome.unwrap_or(ExitCode::Internal)
}
