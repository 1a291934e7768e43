# everything -> one self-contained page
rule report:
    input:
        "results/studies/{study}/tables/runs.parquet",
        "results/studies/{study}/figures/index.json",
        [f"results/studies/{{study}}/fits/{law}.json" for law in study.laws],
    output:
        "results/studies/{study}/report.html",
    params:
        spec=lambda wc: study.report_spec(wc.study),
        code=study.code_digest,
    shell:
        "python -m llama_bench report {params.spec:q} {output} {input}"
