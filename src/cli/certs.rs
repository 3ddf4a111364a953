//! `certs`: by hand what `serve` does by itself when its certificates are made: a CA, a certificate, and the trust that
//! the dstack server is given. Keys are never shown, and no CA is ever deleted.

mod print;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::bail;
use clap::{Args, Subcommand};
use rustls_pki_types::ServerName;

use super::load::load;
use super::{Output, unusable};
use crate::certs::describe::{Description, describe};
use crate::certs::{self, Made, trust};
use crate::config::resolve::Tls;

#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Make a CA, a server certificate and the trust.
    Make(MakeArguments),
    /// Issue another server certificate by the same CA, although the last one may still be good.
    Renew(RenewArguments),
    /// Show what certificates say: names, validity, usage, fingerprint.
    Print(PrintArguments),
    /// Merge the public CAs and others into a hashed directory and a file, for the dstack server.
    Bundle(BundleArguments),
}

/// Where certificates are kept.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct State {
    /// The `stateDir` and the names of this configuration.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A directory that has, or will have, the form of a `stateDir`.
    #[arg(short, long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct MakeArguments {
    #[command(flatten)]
    state: State,
    /// DNS names and IP addresses that the certificate is for. Without any, the configuration's, those of a certificate
    /// that is there, or loopback.
    #[arg(short, long = "name", value_name = "NAME", value_parser = server_name)]
    names: Vec<ServerName<'static>>,
    /// Make a new CA although there is one, which is moved away. Whoever trusts only that one no longer connects.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub struct RenewArguments {
    #[command(flatten)]
    state: State,
    /// DNS names and IP addresses that the certificate is for. Without any, those of the last one.
    #[arg(short, long = "name", value_name = "NAME", value_parser = server_name)]
    names: Vec<ServerName<'static>>,
}

#[derive(Debug, Args)]
pub struct PrintArguments {
    /// PEM files.
    #[arg(value_name = "FILE", required_unless_present_any = ["config", "directory"])]
    files: Vec<PathBuf>,
    /// Those under the `stateDir` of this configuration.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["files", "directory"])]
    config: Option<PathBuf>,
    /// Those under this directory, which has the form of a `stateDir`.
    #[arg(short, long, value_name = "DIR", conflicts_with = "files")]
    directory: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Args)]
pub struct BundleArguments {
    /// Where `trust/` and `trust.pem` are written.
    #[arg(short, long, value_name = "DIR")]
    directory: PathBuf,
    /// Leave the public CAs out, for servers that call nothing public.
    #[arg(long)]
    no_public: bool,
    /// PEM files of CAs, such as the sidecar's `ca.pem` and a company's own.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs one of the commands.
pub fn run(command: &Certs) -> anyhow::Result<ExitCode> {
    match command {
        Certs::Make(arguments) => make(arguments),
        Certs::Renew(arguments) => renew(arguments),
        Certs::Print(arguments) => print(arguments),
        Certs::Bundle(arguments) => bundle(arguments),
    }
}

/// A state directory, and the names that its certificate is for.
struct Place {
    directory: PathBuf,
    names: Vec<ServerName<'static>>,
}

/// Where a configuration or the command line says. Or else what its problems end in.
fn place(
    config: Option<&Path>,
    directory: Option<&Path>,
) -> anyhow::Result<Result<Place, ExitCode>> {
    let Some(config) = config else {
        let directory = directory.unwrap_or(Path::new("."));
        let at_hand = certs::names(directory)?;
        let loopback = || {
            ["localhost", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .to_vec()
        };
        let names = at_hand.unwrap_or_else(loopback);
        let names = names
            .into_iter()
            .filter_map(|name| ServerName::try_from(name).ok());
        return Ok(Ok(Place {
            directory: directory.to_owned(),
            names: names.collect(),
        }));
    };
    let settings = match load(Some(config), &Arc::default()) {
        Ok(settings) => settings,
        Err(problems) => return Ok(Err(unusable(&problems)?)),
    };
    match settings.tls {
        Tls::Made { .. } => Ok(Ok(Place {
            directory: settings.state_dir,
            names: settings.server_names,
        })),
        Tls::Off => bail!(
            "{} has no certificate: it says `tls: off`",
            config.display()
        ),
        Tls::Files { .. } => bail!(
            "{} has a certificate of its own: whoever made `tls.certFile` renews it",
            config.display()
        ),
    }
}

fn make(arguments: &MakeArguments) -> anyhow::Result<ExitCode> {
    let state = &arguments.state;
    let place = match place(state.config.as_deref(), state.directory.as_deref())? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let (directory, now) = (&place.directory, SystemTime::now());
    let mut out = io::stdout().lock();
    if arguments.force {
        for moved in certs::set_aside(directory, now)? {
            writeln!(out, "moved a CA away: {}", moved.display())?;
        }
    } else if certs::has_authority(directory)? {
        bail!(
            "there is a CA in {} already: `certs renew` issues another certificate by it, and --force makes another CA, \
             which breaks every client that has only the old trust",
            directory.display()
        );
    }
    let names = match arguments.names.as_slice() {
        [] => &place.names,
        names => names,
    };
    show(&mut out, &certs::ensure(directory, names, now)?)?;
    Ok(ExitCode::SUCCESS)
}

fn renew(arguments: &RenewArguments) -> anyhow::Result<ExitCode> {
    let state = &arguments.state;
    let place = match place(state.config.as_deref(), state.directory.as_deref())? {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let directory = &place.directory;
    if !certs::has_authority(directory)? {
        let directory = directory.display();
        bail!("there is no CA in {directory} yet: `certs make` makes one");
    }
    // A configuration knows its names better than a certificate from before it was changed.
    let (names, taken) = match arguments.names.as_slice() {
        [] => (
            place.names.as_slice(),
            "a running sidecar takes it on SIGHUP, or within the hour",
        ),
        names => (
            names,
            "a running sidecar takes it on SIGHUP, or within the hour, if these are its own names; it makes another \
             one if not, so write them into `serverNames` too",
        ),
    };
    let made = certs::renew(directory, names, SystemTime::now())?;
    let mut out = io::stdout().lock();
    show(&mut out, &made)?;
    writeln!(out, "{taken}")?;
    Ok(ExitCode::SUCCESS)
}

/// What was done, and what the dstack server needs.
fn show(out: &mut impl Write, made: &Made) -> io::Result<()> {
    for done in &made.done {
        writeln!(out, "{done}")?;
    }
    let (server, ca) = (made.server_file.display(), made.ca_file.display());
    writeln!(out, "certificate and key: {server}\nCA: {ca}")?;
    for (name, value) in made.server_environment() {
        writeln!(out, "{name}={}", value.display())?;
    }
    Ok(())
}

fn print(arguments: &PrintArguments) -> anyhow::Result<ExitCode> {
    let files = match arguments.files.as_slice() {
        [] => {
            let place = place(arguments.config.as_deref(), arguments.directory.as_deref())?;
            match place {
                Ok(Place { directory, .. }) => ["ca.pem", "tls/server.pem"]
                    .map(|name| directory.join(name))
                    .to_vec(),
                Err(code) => return Ok(code),
            }
        }
        files => files.to_vec(),
    };
    print::show(&files, arguments.output, SystemTime::now())?;
    Ok(ExitCode::SUCCESS)
}

fn bundle(arguments: &BundleArguments) -> anyhow::Result<ExitCode> {
    let directory = std::path::absolute(&arguments.directory)?;
    if certs::has_authority(&directory)? {
        bail!(
            "{} is a `stateDir`, whose trust the sidecar keeps itself: choose another directory",
            directory.display()
        );
    }
    let mut certificates = Vec::new();
    let mut concerns = Vec::new();
    for file in &arguments.files {
        let given = trust::read_bundle(file)?;
        for one in given.iter().filter_map(describe) {
            concerns.extend(concern(file, &one, SystemTime::now()));
            concerns.extend(no_authority(file, &one));
        }
        certificates.extend(given);
    }
    if !arguments.no_public {
        certificates.extend(trust::public_roots());
    }
    if certificates.is_empty() {
        bail!("without the public CAs and without a file there is nobody to trust");
    }
    // One CA that is of no use spoils nothing for the others.
    warn(&concerns)?;
    let (hashed, merged) = (directory.join("trust"), directory.join("trust.pem"));
    let change = trust::write(&hashed, &merged, &certificates)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} certificates added, {} removed",
        change.added, change.removed
    )?;
    writeln!(out, "REQUESTS_CA_BUNDLE={}", hashed.display())?;
    writeln!(out, "AWS_CA_BUNDLE={}", merged.display())?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be said of a certificate that should not be relied on.
fn concern(file: &Path, one: &Description, now: SystemTime) -> Option<String> {
    let kind = if one.is_ca { "CA" } else { "certificate" };
    let why = one.concern(now)?;
    Some(format!(
        "{}: the {kind} {} {why}",
        file.display(),
        one.subject
    ))
}

/// What is to be said of a certificate that is trusted and that no CA's certificate is. One that signs itself may be from
/// before certificates said so.
fn no_authority(file: &Path, one: &Description) -> Option<String> {
    let of_a_ca = one.is_ca || one.issuer == one.subject;
    (!of_a_ca).then(|| {
        format!(
            "{}: the certificate {} is no CA, and clients trust nothing by it: give the CA {}",
            file.display(),
            one.subject,
            one.issuer
        )
    })
}

fn warn(concerns: &[String]) -> io::Result<()> {
    let mut err = io::stderr().lock();
    let mut each = concerns.iter();
    each.try_for_each(|concern| writeln!(err, "warning: {concern}"))
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    let name = ServerName::try_from(text.to_owned());
    name.map_err(|_| "it is no DNS name or IP address".to_owned())
}
