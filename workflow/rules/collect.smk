# the records of a study -> tidy tables
rule collect:
    input:
        lambda wc: study.records(wc.study),
    output:
        [f"results/studies/{{study}}/tables/{name}.parquet" for name in TABLES],
    params:
        spec=lambda wc: study.collect_spec(wc.study),
        code=study.code_digest,
    shell:
        "python -m llama_bench collect {params.spec:q} {output[0]}"
