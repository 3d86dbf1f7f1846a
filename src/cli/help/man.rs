//! The man page, mainstay(1): every subcommand from what clap knows of it, in one page, because an operator at night
//! should not have to guess in which of fifteen it stands.
use crate::cli::exit::Exit;
use clap::Command;
use clap_mangen::Man;
use std::io::{self, Write};

/// What clap does not know. Raw roff: a line that begins with a dot is a request, and `\-` is a hyphen that can be copied.
const FILES: &str = r".SH ENVIRONMENT
.TP
\fBMAINSTAY_RUN_DIR\fR
The runtime directory of the agent to ask, where \fB\-\-run\-dir\fR is not given.
.TP
\fBNO_COLOR\fR
Set to anything: no colours on a terminal.
.SH FILES
.TP
\fI/etc/mainstay/mainstay.toml\fR
The configuration of the unit. \fBmainstay help configuration\fR explains every key.
.TP
\fI/run/mainstay\fR
The runtime directory of the unit: status.sock, control.sock, and the logs of the runs. Another one by
\fBagent.run_dir\fR, else RUNTIME_DIRECTORY, else XDG_RUNTIME_DIR/mainstay.
.TP
\fI/var/lib/mainstay\fR
The state directory of the unit: incidents, events, and mail that waits.
.SH SEE ALSO
.BR journalctl (1),
.BR systemctl (1),
.BR nvidia\-smi (1)
";

/// Writes the page. `topics` are names and what they are about.
///
/// # Errors
/// What `out` says.
pub fn write(program: Command, topics: &[(&str, &str)], out: &mut dyn Write) -> io::Result<()> {
    let subcommands: Vec<Command> = program.get_subcommands().cloned().collect();
    let page = Man::new(program).manual("mainstay").date("");
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    writeln!(out, ".SH COMMANDS")?;
    for subcommand in subcommands {
        write_command(subcommand, "mainstay", out)?;
    }
    writeln!(out, ".SH TOPICS\nPages of \\fBmainstay help\\fR \\fITOPIC\\fR, which are built in:")?;
    for (name, about) in topics {
        writeln!(out, ".TP\n\\fB{}\\fR\n{}", escaped(name), escaped(about))?;
    }
    writeln!(out, ".SH EXIT STATUS")?;
    for exit in Exit::ALL {
        writeln!(out, ".TP\n\\fB{}\\fR\n{}", *exit as u8, escaped(exit.meaning()))?;
    }
    out.write_all(FILES.as_bytes())
}

/// One subcommand, or each of its own, under a heading of the second order.
fn write_command(command: Command, under: &str, out: &mut dyn Write) -> io::Result<()> {
    let name = format!("{under} {}", command.get_name());
    if command.has_subcommands() {
        return command.get_subcommands().cloned().try_for_each(|inner| write_command(inner, &name, out));
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    // `--help` is the same everywhere; it stands under OPTIONS once.
    let mut command = command.bin_name(&name).disable_help_flag(true);
    // clap's own section leaves out what an option takes.
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let has_arguments = command.get_arguments().next().is_some();
    let page = Man::new(command);
    writeln!(out, ".SS {}", escaped(&name))?;
    writeln!(out, "{}", escaped(usage))?;
    writeln!(out, ".PP\n{}", escaped(&about))?;
    if has_arguments {
        out.write_all(inside(|text| page.render_options_section(text))?.as_bytes())?;
    }
    Ok(())
}

/// A section that clap made, without what stands before its text: roff's preamble and the heading.
fn inside(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<String> {
    let mut section = Vec::new();
    render(&mut section)?;
    let section = String::from_utf8(section).map_err(io::Error::other)?;
    let text = section.lines().skip_while(|line| !line.starts_with(".SH")).skip(1);
    Ok(text.map(|line| format!("{line}\n")).collect())
}

/// Text as it is, for roff.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
