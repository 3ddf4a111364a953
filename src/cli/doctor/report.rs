//! What the doctor found: one finding for each thing that was looked at, with how to mend it.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Reviews are made, but something is worse than it could be, or could not be looked at.
    Warn,
    /// Reviews fail or never happen, or a secret leaks.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub status: Status,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// All findings, in the order in which things were looked at.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        })
    }
}

impl Report {
    pub fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(check, Status::Ok, message.into(), None);
    }

    pub fn warn(
        &mut self,
        check: &'static str,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.add(check, Status::Warn, message.into(), Some(mend.into()));
    }

    pub fn fail(
        &mut self,
        check: &'static str,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.add(check, Status::Fail, message.into(), Some(mend.into()));
    }

    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The worst of all findings.
    pub fn worst(&self) -> Status {
        let statuses = self.findings.iter().map(|finding| finding.status);
        statuses.max().unwrap_or(Status::Ok)
    }

    /// How many findings are this bad.
    pub fn count(&self, status: Status) -> usize {
        let same = self.findings.iter().filter(|found| found.status == status);
        same.count()
    }

    /// One line for each finding, and one more with how to mend it.
    pub fn show(&self, out: &mut impl Write) -> io::Result<()> {
        for finding in &self.findings {
            let (status, check) = (finding.status, finding.check);
            writeln!(out, "{status:<5} {check:<12} {}", finding.message)?;
            if let Some(mend) = &finding.mend {
                writeln!(out, "      {:<12} -> {mend}", "")?;
            }
        }
        let (warnings, failures) = (self.count(Status::Warn), self.count(Status::Fail));
        writeln!(out, "\n{failures} failed, {warnings} to look at")
    }

    fn add(&mut self, check: &'static str, status: Status, message: String, mend: Option<String>) {
        self.findings.push(Finding {
            check,
            status,
            message,
            mend,
        });
    }
}
