use serde_json::json;

use super::*;

fn render(template: &str) -> String {
    let value = json!({
        "Name": "busybox", "ID": "abc", "Size": 3, "Official": true, "Nothing": null,
        "Config": { "Env": ["A=1", "B=2"], "Labels": { "b.c": "x", "a": "y" } },
        "Ports": {}, "Text": "one,two",
    });
    match Template::parse(template).and_then(|template| template.render(&value)) {
        Ok(text) => text,
        Err(error) => format!("error: {error:#}"),
    }
}

#[test]
fn templates_give_what_go_gives() {
    for (template, wanted) in [
        ("{{.Name}}:{{ .ID }}", "busybox:abc"),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[a:y b.c:x]"),
        ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
        ("{{.Name | upper | printf \"%-9s|\"}}", "BUSYBOX  |"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a=y;b.c=x;"),
        ("{{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$e}}{{end}}", "A=1,B=2"),
        ("{{range .Ports}}x{{else}}none{{end}}", "none"),
        ("{{index .Config.Labels \"b.c\"}}{{index .Config.Env 1}}", "xB=2"),
        ("{{index .Config.Labels \"none\"}}", ""),
        ("{{if and .Official (eq .Size 3)}}yes{{else}}no{{end}}", "yes"),
        ("{{if not .Official}}a{{else if eq .Name \"busybox\"}}b{{else}}c{{end}}", "b"),
        ("{{with .Config}}{{len .Env}}{{end}}", "2"),
        ("{{$x := .Name}}{{$x}} {{$.ID}}", "busybox abc"),
        ("{{join (split .Text \",\") \"-\"}}", "one-two"),
        ("a {{- .ID -}} b", "aabcb"),
        ("{{/* nothing */}}{{\"}}\"}}`{{`raw`}}`", "}}`raw`"),
        ("{{truncate .Name 4}}{{title .Name}}", "busyBusybox"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Config.User}}|{{.Config.Entrypoint}}|{{.Config.Volumes}}", "|[]|map[]"),
        ("{{json .Config.Cmd}} {{.Config.Healthcheck}} {{.Variant}}", "null <nil> "),
        ("{{if .Config.User}}user{{else}}root{{end}}{{len .Config.Shell}}", "root0"),
        ("{{with .Config}}{{.WorkingDir}}{{end}}{{join .Config.OnBuild \",\"}}", ""),
        ("{{.Config.Labels.none}} {{.Config.Volumes.none}}", "<no value> <no value>"),
        ("a\\tb", "a\tb"),
    ] {
        assert_eq!(render(template), wanted, "{template}");
    }
}

#[test]
fn mistakes_are_told() {
    for (template, wanted) in [
        ("{{.None}}", "no .None"),
        ("{{.Name.X}}", "no .X"),
        ("{{.Name", "without }}"),
        ("{{if .Name}}", "no end"),
        ("{{end}}", "without a beginning"),
        ("{{nothing .Name}}", "no such function"),
        ("{{len}}", "wrong arguments"),
        ("{{(.Name}}", "no )"),
        ("{{$y}}", "no $y"),
        ("{{.Name | .ID}}", "no function"),
        ("{{\"a}}", "without }}"),
        ("{{}}", "missing"),
    ] {
        let told = render(template);
        assert!(told.contains(wanted), "{template}: {told}");
    }
    let deep = "{{if .Name}}".repeat(10_000);
    assert!(render(&deep).contains("too deeply"));
    let deep = format!("{{{{{}.Name}}}}", "(".repeat(10_000));
    assert!(render(&deep).contains("too deeply"));
}

#[test]
fn tables_have_headings() {
    let format = Format::parse("table {{.ID}}\\t{{.CreatedSince}}\\t{{upper .Name}}").unwrap();
    let mut out = Vec::new();
    let value = json!({ "ID": "abc", "CreatedSince": "now", "Name": "n" });
    format.write(&mut out, [value].into_iter()).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text, "IMAGE ID   CREATED   NAME\nabc        now       N\n");
}
