//! `tierstack backup`: bases of what the backend holds, taken, listed, verified and restored.

use serde::Serialize;

use tierstack::backup::{self, BackupReport, BaseInfo, Level, Plan, Repository, Restored, Target};
use tierstack::layers::backup::BackupConfig;
use tierstack::{ErrorKind, OpenOptions, Store};

use crate::args::{Backup, BackupArgs, BackupRun, Restore, StoreArgs};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::{Progress, Unit};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;

/// `tierstack backup ...`
pub(crate) async fn run(command: Backup, stop: &Shutdown) -> Outcome {
    match command {
        Backup::Run(args) => take(&args, stop).await,
        Backup::List(args) => list(&args, stop).await,
        Backup::Verify(args) => verify(&args, stop).await,
        Backup::Restore(args) => restore(&args, stop).await,
    }
}

/// The place that the store's `backup` layer names. The store stays closed.
pub(crate) async fn repository(args: &StoreArgs, create: bool) -> Outcome<Repository> {
    let checked = session::check(args)?;
    let options = if create { OpenOptions::default() } else { OpenOptions::reading() };
    let layer =
        checked.layer_config::<BackupConfig>().zip(checked.layer_context("backup", &options));
    let Some((config, context)) = layer else {
        let what = format!(
            "{}: stores.{}.layers: there is no layer 'backup', which says where the backups are; add \
             it as the innermost, such as `backup: {{ to: ./backups }}`",
            args.config.display(),
            checked.store()
        );
        return Err(Failure::usage(what));
    };
    Ok(config.create_repository(&context).await?)
}

/// Takes a base of a store, with progress.
pub(crate) async fn take_base(
    store: &dyn Store,
    repository: &Repository,
    whole: bool,
    stop: &Shutdown,
) -> Outcome<BackupReport> {
    let total = store.usage().await?.entries;
    let progress = Progress::new("backing up", total, Unit::Entries);
    let tell = |done: backup::Progress| progress.set(done.entries, total);
    let taken = stop
        .or(async {
            Ok(if whole {
                backup::run_whole(store, repository, &tell).await?
            } else {
                backup::run(store, repository, &tell).await?
            })
        })
        .await
        .map_err(|failure| failure.next("no base was taken; earlier ones are as they were"))?;
    progress.finish();
    Ok(taken)
}

async fn take(run: &BackupRun, stop: &Shutdown) -> Outcome {
    let args = &run.args;
    let repository = stop.or(repository(&args.store, true)).await?;
    let opened = session::open_below(&args.store, "backup", Use::Existing, stop).await?;
    let taken = session::until_closed(opened.store(), async |store| {
        take_base(&**store, &repository, run.whole, stop).await
    })
    .await?;
    output::fact(args.json.json, &taken, || words_of_report(&taken))
}

/// A base in words.
pub(crate) fn words_of_report(taken: &BackupReport) -> String {
    let BackupReport { base, progress } = taken;
    let (entries, bytes) = (output::entries(base.entries), output::bytes(base.bytes));
    let uploaded = output::bytes(progress.uploaded_bytes);
    let reused = match progress.reused_bytes {
        0 => String::new(),
        bytes => format!(", {} were there already", output::bytes(bytes)),
    };
    format!(
        "took base {}: {entries} ({bytes}) as of {}; uploaded {uploaded}{reused}",
        base.id, base.time
    )
}

async fn list(args: &BackupArgs, stop: &Shutdown) -> Outcome {
    let repository = stop.or(repository(&args.store, false)).await?;
    let bases = stop.or(async { Ok(repository.bases().await?) }).await?;
    output::fact(args.json.json, &bases, || {
        if bases.is_empty() {
            return "there is no base yet; `tierstack backup run` takes one".to_owned();
        }
        let row = |base: &BaseInfo| {
            vec![
                base.time.to_string(),
                base.id.clone(),
                base.last_seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string()),
                output::count(base.entries),
                output::bytes(base.bytes),
                output::bytes(base.uploaded_bytes),
            ]
        };
        let rows: Vec<_> = bases.iter().map(row).collect();
        output::table(&["time", "base", "sequence", "entries", "bytes", "uploaded"], &rows)
    })
}

async fn verify(args: &BackupArgs, stop: &Shutdown) -> Outcome {
    let repository = stop.or(repository(&args.store, false)).await?;
    let progress = Progress::new("verifying", None, Unit::Entries);
    let tell = |done: backup::Progress| progress.set(done.entries, done.total_entries);
    let report = stop.or(async { Ok(repository.verify(Level::All, &tell).await?) }).await?;
    progress.finish();
    output::fact(args.json.json, &report, || {
        let mut words = String::new();
        for finding in &report.findings {
            let base =
                finding.base.as_ref().map(|base| format!(" (base {base})")).unwrap_or_default();
            words += &format!("damaged: {}: {}{base}\n", finding.object, finding.what);
        }
        let (entries, bytes) = (output::entries(report.entries), output::bytes(report.bytes));
        let bases = output::counted(report.bases, "base", "bases");
        words += &format!("read {bases}, {entries}, {bytes}");
        if report.is_intact() && report.bases > 0 {
            words += ": every byte is as it was written";
        }
        if report.orphans > 0 {
            let bytes = output::bytes(report.orphan_bytes);
            let one = format!("object ({bytes}) belongs to no base and does no harm");
            let many = format!("objects ({bytes}) belong to no base and do no harm");
            words += &format!("\n{}", output::counted(report.orphans, &one, &many));
        }
        words
    })?;
    if report.is_intact() && report.bases == 0 {
        // An answer of yes would hide a wrong path, or heads that somebody deleted.
        let none = Failure::failed("there is no base, so nothing can be restored");
        return Err(none.next(match report.orphans {
            0 => "`tierstack backup run` takes one",
            _ => "if there were bases, bring back what is missing from head/; `tierstack backup run` takes a new one",
        }));
    }
    if report.is_intact() {
        return Ok(());
    }
    let things = output::counted(report.findings.len() as u64, "damaged thing", "damaged things");
    Err(Failure::failed(format!("the backups have {things}")).next(
        "`tierstack backup run --whole` takes a base that shares nothing with them, while the store is there",
    ))
}

/// What a restore will do, or has done.
#[derive(Serialize)]
struct Planned<'a> {
    plan: &'a Plan,
    into: String,
    prefix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<&'a Restored>,
}

async fn restore(args: &Restore, stop: &Shutdown) -> Outcome {
    let into = StoreArgs { config: args.into.clone(), store: args.into_store.clone() };
    let name = session::check(&into)?.store().to_owned();
    let repository = stop.or(repository(&args.store, false)).await?;
    let target = match (args.at, args.seq, &args.base) {
        (Some(at), _, _) => Target::At(at),
        (_, Some(seq), _) => Target::Sequence(seq),
        (_, _, Some(base)) => Target::Base(base.clone()),
        _ => Target::Latest,
    };
    let plan = stop.or(async { Ok(repository.plan(target).await?) }).await?;
    let mut planned = Planned {
        plan: &plan,
        into: format!("{} of {}", name, into.config.display()),
        prefix: args.prefix.as_deref(),
        restored: None,
    };
    if args.dry_run {
        return output::fact(args.json.json, &planned, || words_of_plan(&planned, args));
    }
    let opened = session::open_stored(&into, args.over_journal, stop).await?;
    let restored = session::until_closed(opened.store(), async |store| {
        let options = backup::Restore {
            prefix: args.prefix.clone().unwrap_or_default().into(),
            resume: args.resume,
            ..backup::Restore::default()
        };
        let restored = restore_base(&repository, &plan, &**store, &options, stop).await?;
        session::warn_if_forgotten(&**store);
        Ok(restored)
    })
    .await?;
    planned.restored = Some(&restored);
    output::fact(args.json.json, &planned, || words_of_restored(&restored, &planned, args))
}

/// Restores a base, with progress.
pub(crate) async fn restore_base(
    repository: &Repository,
    plan: &Plan,
    target: &dyn Store,
    options: &backup::Restore,
    stop: &Shutdown,
) -> Outcome<Restored> {
    let progress = Progress::new("restoring", Some(plan.base.entries), Unit::Entries);
    let tell = |done: backup::Progress| progress.set(done.entries, done.total_entries);
    let begun = stop
        .or(async { Ok(backup::restore(repository, plan, target, options, &tell).await) })
        .await;
    let restored = match begun {
        Ok(Ok(restored)) => restored,
        Ok(Err(error)) if error.kind() == ErrorKind::Conflict => return Err(Failure::from(error)),
        Ok(Err(error)) => return Err(unfinished(target, error.into()).await),
        Err(stopped) => return Err(unfinished(target, stopped).await),
    };
    progress.finish();
    Ok(restored)
}

/// Says what the target holds now.
async fn unfinished(target: &dyn Store, failure: Failure) -> Failure {
    match backup::unfinished_restore(target).await {
        Ok(None) => failure.next("the target is as it was"),
        _ if failure.is_of_damaged_backup() => failure.next(
            "the target holds part of the base, and is marked as unfinished: --resume goes on once the \
             backup is whole again; or empty the target and restore another base of `tierstack backup \
             list`, which `tierstack backup verify` finds sound",
        ),
        _ => failure.next(
            "the target holds part of the base, and is marked as unfinished; the same command with \
             --resume goes on",
        ),
    }
}

fn words_of_plan(planned: &Planned<'_>, args: &Restore) -> String {
    let Plan { base, reached, reached_seq, .. } = planned.plan;
    let part = match planned.prefix {
        Some(prefix) => format!(", of them those that begin with '{prefix}'"),
        None => String::new(),
    };
    let (entries, bytes) = (output::entries(base.entries), output::bytes(base.bytes));
    let mut words = format!(
        "would restore base {}: {entries} ({bytes}){part}\n  into      {}\n  reaches   {reached}",
        base.id, planned.into
    );
    if let Some(seq) = reached_seq {
        words += &format!(", sequence {seq}");
    }
    words += &words_of_gap(planned.plan, args);
    words + "\nnothing was written"
}

/// What lies between the moment that was asked for and the one that is reached.
fn words_of_gap(plan: &Plan, args: &Restore) -> String {
    let mut words = match args.at.filter(|asked| *asked != plan.reached) {
        Some(asked) => format!(
            "\n  asked for {asked}: the newest base before it is of {}, and holds nothing that was written \
             since",
            plan.reached
        ),
        None => String::new(),
    };
    for base in &plan.doubtful {
        words += &format!(
            "\n  base {} was taken after it, but is dated {}: a clock was wrong, so it may be nearer; \
             --base {} restores it",
            base.id, base.time, base.id
        );
    }
    words
}

fn words_of_restored(restored: &Restored, planned: &Planned<'_>, args: &Restore) -> String {
    let (entries, bytes) = (output::entries(restored.entries), output::bytes(restored.bytes));
    let mut words = format!("restored {entries} ({bytes}) into {}\n", planned.into);
    words += &format!("reached {}", restored.reached);
    if let Some(seq) = restored.reached_seq {
        words += &format!(", sequence {seq}");
    }
    if restored.proven {
        words += "; read back and compared: equal";
    }
    words += &words_of_gap(planned.plan, args);
    if restored.expired > 0 {
        words += &format!("\nleft out {}, expired since", output::entries(restored.expired));
    }
    words
}
