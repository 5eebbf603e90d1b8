"""The steps that make the release, and its twin for scores: the same recipe with three speakers left out."""

from benchmarks.results import faces
from benchmarks.results.steps import Place, Step, prepare, pretrained, train

UNSEEN = "1,2,3"  # speakers that the twin has not heard; the first acted the takes
DEV = "--dev_speakers=12"
# As FER+'s pictures are, which are not turned level. Haar's box has to lie inside the frame: in a close-up it cuts off
# the chin.
CLOSE = (faces.CLOSE, "--detector=yunet", "--align=false")
TAKES = ("--split=speaker", "--test_speakers=1", *CLOSE)
RELEASE, TWIN = "emotions", "twin"


def data(place: Place) -> list[Step]:
    """FER+ with a twentieth as dev; the takes, as a test and split; speech, with and without three speakers."""
    speech = ("ravdess", "ravdess_speech")
    return [
        prepare(place, "fer", "ferplus", "fer", "--holdout=0.05"),
        prepare(place, "ravdess", "ravdess_takes", "takes", *TAKES),
        prepare(place, "ravdess", "ravdess_takes", "takes_split", "--split=take", *CLOSE),
        prepare(place, *speech, "speech", "--modality=audio", "--split=speaker", DEV),
        prepare(place, *speech, "speech_f0", "--modality=audio", "--split=speaker", DEV, f"--test_speakers={UNSEEN}"),
    ]


def networks(place: Place) -> list[Step]:
    """The published weights fitted to the corpora, and the training of the networks."""
    pictures = place.data("fer")
    statistics = (f"--statistics={pictures}", "--image_size=48")
    steps = [pretrained(place, "faceres", "faceres-deep.json", "faceres", *statistics)]
    start = place.weights("faceres")
    for name, variant in (("faces_rare", ":rare"), ("faces_small", ":small"), ("faces", "")):
        config = f"configs/released/faces.py{variant}"
        steps.append(train(place, name, config, f"data.faces={pictures}", f"model.init_from={start}"))
        start = place.run(name)
    for name in ("speech", "speech_f0"):
        steps += [
            pretrained(place, "yamnet", "yamnet.tflite", name, f"--statistics={place.data(name)}"),
            train(
                place,
                name,
                "configs/released/speech.py",
                f"data.clips={place.data(name)}",
                f"model.init_from={place.weights(name)}",
            ),
        ]
    return steps


def packed(place: Place, release: str, speech: str) -> list[Step]:
    """Face, voice and both as one archive, calibrated, in float16. The fusion learns nothing: any labelled clips do."""
    fusion = f"{release}/fusion"
    features = place.work / "features" / fusion
    runs = f"{place.run('faces')},{place.run(speech)}"
    return [
        extract(f"features/{fusion}", runs, place.data("takes_split"), features),
        train(place, fusion, "configs/released/fusion.py", f"data.features={features}"),
        Step(
            f"archives/{release}",
            (
                *("launch.py", "release", f"--workdir={place.run(fusion)}", "--half", "--calibrate"),
                f"--output={place.work / release}.zip",
            ),
        ),
    ]


def extract(name: str, runs: str, data: object, output: object) -> Step:
    """The step that writes the logits of two encoders for every frame of some clips."""
    flags = (f"--workdir={runs}", f"--data={data}", f"--output={output}", "--layer=logits")
    return Step(name, ("launch.py", "extract", *flags))
