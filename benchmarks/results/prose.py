# ruff: noqa: E501 - tables of Markdown
"""The words of docs/results.md; every figure of ours in them is filled in from a row."""

HEAD = """
# Results on real data

Made by `make results` from the corpora and published weights in `../shared/data` and from nothing else; do not edit, run it
again. Two CPU cores; minutes are wall time of all steps of a row, on a machine that did other work as well, and steps that
rows share are counted in each. Intervals are 95 % percentile bootstraps over pictures, clips or takes, differences are
paired, p-values by permutation (`avemo.metrics.significance`). Choices were made on dev parts only, except where a row says so. ✗: set out to be
reached, and was not.
"""

# Columns of a row's first table beside the score, by key of a score.
COLUMNS = {
    "uar": "UAR",
    "one_class": "one class",
    "two_class": "two classes",
    "three_class": "three classes",
    "recordings": "mean of recordings",
    "valence": "valence",
    "arousal": "arousal",
}

NOTES = {
    "speech": """
The four encoders took {minutes:.0f} minutes to train, together. They share one recipe; its learning rate and augmentation were
chosen by short runs on speakers 11 and 12, with speakers 1 to 3 left out. Those two are tested in the last fold: its figure
is the one that this choice may flatter. The references learn from the dev speaker too, nine speakers in all; ours from eight.
""",
    "fusion": """
Every fusion learns from thirteen takes a fold, on what both encoders' classes say of each frame; the mean of fer and eGeMAPS
has learned from none of this actor, and neither has either of its parts. Late fusion was chosen on the dev part of fold 1 before any test part was
looked at; the paper's own fusion was added when the next table had been made, so its {paper:.3f} is the a-priori figure only
for those who would have taken the paper's method anyway. fer's cascade found no face in
{peer_frames[without_a_face_found]} of {peer_frames[all]} frames; of those it was given the whole picture.
""",
    "fusion_table": """
Thirteen takes to learn from and thirteen to test on in each fold: the order of the fusions is not the order that another set of takes would
show. None is shown to differ from late fusion by the corrected p-values but sound alone. Whoever had chosen a fusion in each
fold by its own dev part, thirteen takes too, would have had the last line.
""",
    "traces": """
Ours reaches {share:.2f} of the ceiling. A linear reader of what face and voice show, which sees no picture and hears no sound
but the generator's own numbers, reaches {reader_share:.2f}: what lies between that and 1 is hidden faces, silence and cues that
are noisy themselves, and nobody's to win by better networks alone.

How far raters agree, means over recordings (`python -m data_prep.agreement`): CEAP-360VR, 16 raters, pairwise CCC
{raters[ceap][valence][ccc]:.2f} for valence and {raters[ceap][arousal][ccc]:.2f} for arousal, Cronbach's alpha
{raters[ceap][valence][alpha]:.2f} and {raters[ceap][arousal][alpha]:.2f}; the synthetic raters, each against the mean of the
others, CCC {raters[synthetic][valence][leave_one_rater_out]:.2f} and {raters[synthetic][arousal][leave_one_rater_out]:.2f}.
""",
    "teacher": """
What worked: votes as targets, and BatchNorm statistics given back to the published weights (below). What did not: the rare
classes. Of {numbers[contempt]} pictures of contempt and {numbers[disgust]} of disgust it names {recall[contempt]:.2f} and
{recall[disgust]:.2f}; 48 pixels, eight epochs and a loss that follows the votes leave them to the classes beside them. Class weights
are there and were not tried; balanced sampling is part of the teacher for other corpora (below), which is right less often here. fer was trained on the same pictures under their old
labels, of which FER+ corrects many: that is part of the difference.
""",
    "student": """
Parameters of the student: {parameters:,}. Teacher and one student together took {recipe_minutes:.0f} minutes. The gain over the same
student without a teacher is shown; the teacher itself is not reached in 1,000 steps, 2.4 epochs, from a trunk that is cut.
""",
    "embedding": """
The triplets are made of votes, so the space that learned from votes is at home; what training on triplets adds to a classifier is
the difference to the second row, whose network learned from the same pictures for as many steps.
""",
    "cross_corpus": """
No teacher has seen a picture of RAVDESS, with or without a label; the student has seen unlabelled clips of this actor. Takes are cut as close
as FER+ is, which no label was needed to know. Calm, which FER+ does not have, is not among the takes; contempt, which RAVDESS does
not have, is left out of the answer.

As it is, the teacher of the first row does not carry over ({reached[teacher]:.2f}): it calls most takes neutral, which is what many
frames of a take show, what this man's face at rest looks like to it, and what three of ten votes of FER+ say. The teacher for other corpora
has the same network and length, meets every class equally often and distorted pictures; its recipe was written down once, was not tuned,
and reaches {at_home:.3f} on FER+'s validation part.

`evaluate --adapt` fits a network to the takes without a label. For the first teacher, taking out what it says of the actor on
average: {reached[teacher_person]:.2f}; BatchNorm with the statistics of the takes: {reached[teacher_statistics]:.2f}; both: {reached[teacher_both]:.2f}. For
the other: {reached[teacher_robust]:.2f} as it is, {reached[teacher_robust_person]:.2f}, {reached[teacher_robust_statistics]:.2f} and {reached[teacher_robust_both]:.2f}. Both ways
look at all takes before one is scored, and count on every emotion being acted about equally often. They were taken up when the plain
scores were known to be bad, and on these takes, as there is no other labelled video here: their figures may flatter, and
fifty-two takes of one man are few. The same subtraction does fer no good;
it was done on what fer says of a take, the mean over frames, and its BatchNorm was left alone.
""",
}

FAIRNESS = """
## What these data can and cannot say

Calibration and recall by class are above. FER+ is pictures from web searches of 2013: nobody recorded who is on them, how old
they are, where they live or what they felt; its raters judged one face each, and disagree on most. Contempt, disgust and fear
are few, and their recall is that of a class hardly seen: an average over classes (UAR) says more than accuracy. RAVDESS is
acted, by North American English speakers of about one age; the takes are one man's, so their intervals are about
his takes and say nothing of other people. No group of people can be compared with another on any of this, so no claim of
fairness is made, and none should be inferred from the averages. An expression is not a feeling: nothing here measures
what a person feels, and the runs are not for decisions about people.
"""

PAPER = """
## The paper's own rows

Not run here: AffectNet, Google FEC and RECOLA are behind licences, and FaceNet's and VGGish's weights could not be had.
Hardware and time are estimates: the teacher sees 15 million pictures in 58,429 steps, a v5e-8 takes at most 65,000 a second
(`docs/cloud_tpu.md`), two 16 GB GPUs perhaps a thousand.

| row | the paper's figure | config | expected hardware and time | here |
|---|---|---|---|---|
| AffectNet, 8 classes, teacher | 61.3 % (second hand) | `configs/paper/teacher.py` | v5e-8, within the hour; two GPUs, 4 hours | not run here |
| AffectNet, 8 classes, student | 61.6 % | `configs/paper/student.py` | twice the teacher's | not run here |
| AffectNet, 7 classes, student | 65.4 % | the same with `--config.model.num_classes=7` | twice the teacher's | not run here |
| FEC, triplet accuracy | none that is certain | `configs/paper/student.py` | minutes | not run here |
| RECOLA, valence and arousal | none that is certain | `configs/paper/audio.py`, `configs/paper/fusion.py` | one GPU, hours | not run here |

    python -m data_prep affectnet  --source=AFFECTNET --output=DATA
    python -m data_prep affectnet  --source=AFFECTNET --output=DATA --name=affectnet7 --contempt=False    # for seven classes
    python -m data_prep fec        --source=FEC       --output=DATA
    python -m data_prep recola     --source=RECOLA    --output=DATA
    python -m data_prep unlabelled --source=FACES     --output=DATA
    python -m avemo.models.pretrained facenet_vggface2 --file=20180402-114759-vggface2.pt --output=weights/facenet
    python -m avemo.models.pretrained vggish --file=vggish_model.ckpt --output=weights/vggish

    python launch.py train --config=configs/paper/teacher.py --workdir=runs/teacher --config.data.faces=DATA/affectnet --config.data.triplets=DATA/fec --config.model.init_from=weights/facenet
    python launch.py train --config=configs/paper/student.py --workdir=runs/student --config.teacher=runs/teacher --config.data.faces=DATA/affectnet --config.data.triplets=DATA/fec --config.data.unlabelled=DATA/unlabelled
    python launch.py train --config=configs/paper/teacher.py --workdir=runs/teacher7 --config.data.faces=DATA/affectnet7 --config.data.triplets=DATA/fec --config.model.init_from=weights/facenet --config.model.num_classes=7
    python launch.py train --config=configs/paper/student.py --workdir=runs/student7 --config.teacher=runs/teacher7 --config.data.faces=DATA/affectnet7 --config.data.triplets=DATA/fec --config.data.unlabelled=DATA/unlabelled --config.model.num_classes=7
    python launch.py evaluate --workdir=runs/student --data=DATA/fec
    python launch.py train --config=configs/paper/audio.py --workdir=runs/audio --config.data.clips=DATA/recola --config.model.init_from=weights/vggish
    python launch.py extract --workdir=runs/student,runs/audio --data=DATA/recola --output=DATA/recola_features
    python launch.py train --config=configs/paper/fusion.py --workdir=runs/fusion --config.data.features=DATA/recola_features
"""
