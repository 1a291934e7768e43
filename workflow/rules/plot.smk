# tables and fits -> figures
rule plot:
    input:
        "results/studies/{study}/tables/runs.parquet",
        [f"results/studies/{{study}}/fits/{law}.json" for law in study.laws],
    output:
        "results/studies/{study}/figures/index.json",
    params:
        spec=lambda wc: study.report_spec(wc.study),
        code=study.code_digest,
    shell:
        "python -m llama_bench plot {params.spec:q} {output} {input}"
