"""All experiments, in the document's order."""

from benchmarks.results import cross_corpus, embedding, faces, folded, fusion, sewa, speech, traces

EXPERIMENTS = {
    name: experiment
    for module in (faces, embedding, folded, cross_corpus, speech, fusion, traces, sewa)
    for name, experiment in module.EXPERIMENTS.items()
}
