//! `tierstack rewrite`: stored values brought into the form that the present settings would write.

use serde::Serialize;

use tierstack::{Rewrite, RewriteReport, Scan, Store};

use crate::args;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::{Progress, Unit};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;

/// What one layer did.
#[derive(Serialize)]
struct Rewritten {
    layer: String,
    examined: u64,
    rewritten: u64,
    damaged: u64,
    changed: u64,
}

/// `tierstack rewrite`
pub(crate) async fn run(args: args::Rewrite, stop: &Shutdown) -> Outcome {
    let stack = session::open(&args.store, Use::Existing, stop).await?;
    let name = stack.name().to_owned();
    let rewriters = stack.rewriters().to_vec();
    session::until_closed(stack.store(), async |store| {
        if rewriters.is_empty() {
            let what =
                format!("'{name}' has no layer that encodes values, so nothing is to be rewritten");
            return Err(Failure::usage(what));
        }
        let total = store.usage().await?.entries;
        let mut all = Vec::new();
        let mut damage: Option<Failure> = None;
        for rewriter in &rewriters {
            let report = match rewrite(&**rewriter, total, stop).await {
                // What cannot be decoded further in ends this layer's pass, and no other's.
                Err(failure) if failure.is_corruption() => {
                    let what = format!("{} was not rewritten to the end", rewriter.name());
                    damage = damage.or(Some(failure.context(what)));
                    continue;
                }
                done => done?,
            };
            all.push(Rewritten {
                layer: rewriter.name().to_owned(),
                examined: report.examined,
                rewritten: report.rewritten,
                damaged: report.damaged,
                changed: report.changed,
            });
            if let Some(error) = report.first_damage {
                let one = "entry cannot be decoded and stays as it is";
                let many = "entries cannot be decoded and stay as they are; the first";
                let what = output::counted(report.damaged, one, many);
                damage = damage.or(Some(Failure::from(error).context(what)));
            }
        }
        store.flush().await?;
        output::fact(args.json.json, &all, || words(&all))?;
        match damage {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    })
    .await
}

async fn rewrite(
    rewriter: &dyn Rewrite,
    total: Option<u64>,
    stop: &Shutdown,
) -> Outcome<RewriteReport> {
    let progress = Progress::new(format!("rewriting {}", rewriter.name()), total, Unit::Entries);
    let mut tell = |report: &RewriteReport| progress.set(report.examined, total);
    let report = stop
        .or(async { Ok(rewriter.rewrite(Scan::all(), &mut tell).await?) })
        .await
        .map_err(|failure| failure.next("what was rewritten stays; run it again for the rest"))?;
    progress.finish();
    Ok(report)
}

fn words(all: &[Rewritten]) -> String {
    let line = |layer: &Rewritten| {
        let (rewritten, examined) =
            (output::count(layer.rewritten), output::entries(layer.examined));
        let mut line = format!("{}: wrote {rewritten} of {examined} again", layer.layer);
        if layer.damaged > 0 {
            line += &format!("; {} cannot be decoded", output::count(layer.damaged));
        }
        if layer.changed > 0 {
            let changed = output::count(layer.changed);
            line += &format!("; {changed} were changed by others meanwhile and left as they are");
        }
        line + "\n"
    };
    all.iter().map(line).collect()
}
