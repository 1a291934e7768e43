# finished trainings -> the losses of those held out, in writing, before these may start
rule forecast:
    input:
        lambda wc: [ancient(path) for path in study.forecast_from()],
    output:
        f"{study.folder}/forecasts/{{forecast}}.json",
    params:
        spec=lambda wc: study.forecast_spec.canonical(),
    shell:
        "python -m llama_bench forecast {params.spec:q} {output}"
