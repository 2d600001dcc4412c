//! `unit`: a systemd unit that starts a supervised container at boot, or all that their policies want.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::supervised;
use crate::args::Unit;
use crate::records::{Records, Supervised, short};
use crate::state::StateStore;

/// Present in imgtool's overlay bundles, which have to be mounted after a boot.
const ORIGIN_ANNOTATION: &str = "org.imgtool.bundle";

pub(super) fn run(args: &Unit, store: &StateStore, records: &Records) -> Result<u8> {
    let program = std::env::current_exe().context("find our own program")?;
    // It may be called by the path of a copy that is open in memory.
    let program = if program.exists() { program } else { "/usr/local/bin/runtime".into() };
    let words = [
        program.display().to_string(),
        format!("--root={}", store.root().display()),
        format!("--records={}", records.place()?.display()),
    ];
    let runtime = words.map(|word| quoted(&word)).join(" ");
    let text = match &args.id {
        Some(id) => of_one(&supervised::load(id, records, store)?, &runtime, &program),
        None => of_all(&runtime),
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the unit")?;
    Ok(0)
}

fn of_one(record: &Supervised, runtime: &str, program: &Path) -> String {
    let id = &record.id;
    let overlay = record.annotations.contains_key(ORIGIN_ANNOTATION);
    let mount = if overlay {
        let imgtool = quoted(&program.with_file_name("imgtool").display().to_string());
        let bundle = quoted(&record.bundle.display().to_string());
        format!("ExecStartPre={imgtool} mount {bundle}\n")
    } else {
        String::new()
    };
    let image = if record.image().is_empty() { "container" } else { record.image() };
    format!(
        "# {name}.service: put it into /etc/systemd/system, then\n\
         #   systemctl daemon-reload && systemctl enable --now {name}\n\
         [Unit]\n\
         Description={image} as {name}\n\
         Wants=network-online.target\n\
         After=network-online.target local-fs.target\n\
         \n\
         [Service]\n\
         Type=forking\n\
         {mount}\
         ExecStart={runtime} start {id}\n\
         ExecStop={runtime} stop {id}\n\
         # Its own supervisor starts it again, by `run --restart`.\n\
         Restart=no\n\
         KillMode=mixed\n\
         Delegate=yes\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        name = escaped(&record.name),
        image = escaped(image),
        id = short(id),
    )
}

fn of_all(runtime: &str) -> String {
    format!(
        "# runtime-boot.service: put it into /etc/systemd/system, then\n\
         #   systemctl daemon-reload && systemctl enable runtime-boot\n\
         # `always` is started even if it was stopped by hand, `unless-stopped` is not.\n\
         [Unit]\n\
         Description=Containers whose restart policy wants them after a boot\n\
         Wants=network-online.target\n\
         After=network-online.target local-fs.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         KillMode=process\n\
         ExecStart={runtime} start --boot\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// One word of a unit's command line.
fn quoted(word: &str) -> String {
    let escaped = escaped(word);
    if escaped.contains([' ', '"', '\'', '\\', ';', '$']) {
        let inner = escaped.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$");
        return format!("\"{inner}\"");
    }
    escaped
}

/// Systemd replaces what follows a percent sign; a line is to stay one.
fn escaped(text: &str) -> String {
    text.replace('%', "%%").replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        assert_eq!(quoted("/usr/bin/runtime"), "/usr/bin/runtime");
        assert_eq!(quoted("/a b/50%\"$x"), "\"/a b/50%%\\\"$$x\"");
        assert_eq!(quoted("a\nExecStart=b"), "\"a ExecStart=b\"");
    }
}
