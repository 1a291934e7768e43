# finished trainings, and their evaluations -> the losses, or the scores, of those held out, in
# writing, before these may start
rule forecast:
    input:
        lambda wc: [ancient(path) for path in study.forecast_from(wc.forecast)],
    output:
        f"{study.folder}/forecasts/{{forecast}}.json",
    params:
        spec=lambda wc: study.forecast(wc.forecast).canonical(),
    shell:
        "python -m llama_bench forecast {params.spec:q} {output}"
