# ruff: noqa: E501 - tables of Markdown
"""The words of docs/results.md. Every figure of ours in them is filled in from an experiment's values."""

HEAD = """
# Results on real data

`make results TRAIN=1` makes this page from the corpora and published weights in `../shared/data` alone: do not edit it, run it again.
Everything ran on two CPU cores. Minutes are the wall time of all steps of a row, on a machine that did other work too; steps
shared by several rows count in each. Intervals are 95 % percentile bootstraps over pictures, clips or takes. Differences are
paired, with p-values by permutation (`avemo.metrics.significance`). Choices were made on dev parts only, unless a row says
otherwise. ✗ marks a target that was missed.
"""

# Columns beside the score in the first table of a row, by key of a score.
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
The four encoders took {minutes:.0f} minutes to train, together. They share one recipe. Its learning rate and augmentation were
chosen by short runs on speakers 11 and 12, with speakers 1 to 3 left out. Speakers 11 and 12 are tested in the last fold, so
that fold's score may be flattered by the choice. The references also learn from the dev speaker: nine speakers, ours eight.
""",
    "fusion": """
In each fold, every fusion learns from thirteen takes and reads what both encoders' classes say of each frame. The mean of fer
and eGeMAPS, like each of the two alone, has learned nothing from this actor. Late fusion was chosen on the dev part of fold 1,
before any test part was looked at. The paper's own fusion was added after the next table had been made, so its {paper:.3f} is
an a-priori result only for those who would have taken the paper's method anyway. fer's cascade found no face in
{peer_frames[without_a_face_found]} of {peer_frames[all]} frames; on those, fer was given the whole picture.
""",
    "fusion_table": """
Each fold has thirteen takes to learn from and thirteen to test on, so another set of takes would order the fusions
differently. By the corrected p-values, only sound alone differs significantly from late fusion. Choosing the best fusion of
each fold on its own dev part, also thirteen takes, gives the last line.
""",
    "traces": """
Ours reaches {share:.2f} of the ceiling. A linear reader of the cues in face and voice, which gets the generator's numbers
instead of pictures and sound, reaches {reader_share:.2f}. The rest is lost to hidden faces, silence and noise in the cues
themselves, and better networks alone cannot win it back.

Agreement between raters, averaged over recordings (`python -m data_prep.agreement`): on CEAP-360VR with 16 raters, pairwise CCC
is {raters[ceap][valence][ccc]:.2f} for valence and {raters[ceap][arousal][ccc]:.2f} for arousal, and Cronbach's alpha
{raters[ceap][valence][alpha]:.2f} and {raters[ceap][arousal][alpha]:.2f}. The synthetic raters, each against the mean of the
others, reach CCC {raters[synthetic][valence][leave_one_rater_out]:.2f} and {raters[synthetic][arousal][leave_one_rater_out]:.2f}.
""",
    "sewa_folds": """
Ours reaches {ours[arousal]:.3f} for arousal and {ours[valence]:.3f} for valence. The challenge's script pads every recording to the
longest by its last value, so that up to nearly half of what it scores of a recording is its last frame; the systems' own traces go on
there, ours are padded too. Scored so, ours is {padded[avemo][arousal]:.3f} and {padded[avemo][valence]:.3f}; the mean of the
nine is then {padded[mean of the nine][arousal]:.3f} and {padded[mean of the nine][valence]:.3f}, that of the faces
{padded[mean of the faces][arousal]:.3f} and {padded[mean of the faces][valence]:.3f}.
""",
    "sewa_de_hu": """
Ours reaches {ours[arousal]:.3f} for arousal and {ours[valence]:.3f} for valence; padded as above {padded[avemo][arousal]:.3f} and
{padded[avemo][valence]:.3f}, the mean of the nine {padded[mean of the nine][arousal]:.3f} and
{padded[mean of the nine][valence]:.3f}. What is chosen among German recordings need not suit Hungarian ones: their sound says
less of valence.
""",
    "sewa_hu_de": """
Ours reaches {ours[arousal]:.3f} for arousal and {ours[valence]:.3f} for valence; padded as above {padded[avemo][arousal]:.3f} and
{padded[avemo][valence]:.3f}, the mean of the nine {padded[mean of the nine][arousal]:.3f} and
{padded[mean of the nine][valence]:.3f}.
""",
    "sewa_table": """
In all rows sound weighs 0.37 of a face in the prior, a number chosen by people who had seen scores of these recordings: compare the
rows with one another, not with the tables above. The prior alone, without a network, scores {prior:.3f}. With a network of each fusion
(down) and temporal model (across):

{grid}

Better than the prior at p < 0.05 by Holm's method: {better} of the {settings} networks; worse: {worse}. None should be picked from this
table, whose best row was found on the recordings that it is scored on. Not measured: the other fusions (tfn is refused for nine
streams; cross attention would have 72 blocks). `configs/ablations/sewa.py:all` has them. The sweep was
interrupted: its minutes are the sum of its settings' own, two at a time.
""",
    "teacher": """
What worked: votes as targets, and BatchNorm statistics given back to the published weights (below). What did not: the rare
classes. Recall is {recall[contempt]:.2f} on {numbers[contempt]} pictures of contempt and {recall[disgust]:.2f} on
{numbers[disgust]} of disgust: with 48 pixels, eight epochs and a loss that follows the votes, they go to neighbouring classes.
Class weights exist but were not tried. Balanced sampling is part of the teacher for other corpora (below), which is less
accurate here. fer was trained on the same pictures with their old labels, many of which FER+ corrects; that is part of the
difference.
""",
    "student": """
The student has {parameters:,} parameters. The teacher and one student took {recipe_minutes:.0f} minutes together. The gain over
the same student without a teacher is significant. The student does not reach its teacher in 1,000 steps (2.4 epochs) from a
truncated trunk.
""",
    "embedding": """
The triplets are made from votes, which favours a space that learned from votes. What training on triplets adds to a classifier
is the difference to the second row: its network learned from the same pictures for the same number of steps.
""",
    "cross_corpus": """
No teacher has seen a picture of RAVDESS, with or without a label; the student has seen unlabelled clips of this actor. Takes are
cropped as closely as FER+, which can be seen without labels. Calm, which FER+ lacks, is not among the takes; contempt, which
RAVDESS lacks, is left out of the answers.

The teacher of the first row does not carry over unchanged ({reached[teacher]:.2f}). It calls most takes neutral: many frames of
a take are neutral, this man's face at rest looks neutral to it, and so are three of ten votes of FER+. The teacher for other
corpora has the same network and length, but sees every class equally often, in distorted pictures. Its recipe was written down
once and not tuned; it reaches {at_home:.3f} on FER+'s validation part.

`evaluate --adapt` fits a network to the takes without labels. The first teacher reaches {reached[teacher_person]:.2f} when its
average answer for the actor is subtracted, {reached[teacher_statistics]:.2f} when BatchNorm uses the statistics of the takes,
and {reached[teacher_both]:.2f} with both. The other reaches {reached[teacher_robust]:.2f} as it is, {reached[teacher_robust_person]:.2f},
{reached[teacher_robust_statistics]:.2f} and {reached[teacher_robust_both]:.2f}. Both methods look at all takes before the first is
scored, and assume that every emotion is acted about equally often. They were added after the plain scores were known to be
bad, and were tried on these takes, because there is no other labelled video here. So their scores may be flattered, and
fifty-two takes of one man are few. The same subtraction does not help fer; it was applied to fer's answer for a take, the mean over
frames, and fer's BatchNorm was left alone.
""",
}

PAGES = {
    "sewa.md": """
# SEWA: valence and arousal from other systems' traces

`python -m benchmarks.results sewa --peers=PYTHON` makes this page from `../shared/data/sewa_devel` alone: do not edit it, run it
again. The data are the Devel part of AVEC 2019 CES as the challenge's public baseline repository has it: gold valence and
arousal of 28 recordings (14 German, 14 Hungarian) ten times a second, and what nine systems of a single feature each predict
for them, five of sound and four of faces. They are for research and not part of this project.

    sewa_devel/labels_devel/Devel_DE_01.csv                 name;timestamp;arousal;valence;liking
    sewa_devel/predictions_egemaps-func_STD/Devel_DE_01.csv the same; the nine folders are named in the command below

**How ours is made.** Traces start from the weighted mean of the streams' own predictions, smoothed over time by a Gaussian of 1.2 s
and scaled about its mean (`avemo/models/prior.py`). Scale and offset are trained with the CCC loss. The candidates differ in how much
the sound weighs in that mean. Each dimension of each fold averages the two of four candidates that score best on the dev parts
of the *other* folds, so nothing is chosen on what is reported (`sweep` with `folds`, docs/ablations.md). Networks that add to the mean are compared
below. The tested recordings' labels are read by the scorer alone.

**What was known beforehand.** The list of candidates, the width of the smoothing, the learning rate, that two are averaged and the decision
against a network were made by people who had seen scores of these 28 recordings, also across cultures. The choice among the candidates is
blind, the list is not. Averaging two in place of taking the best raised (a) from 0.591 and 0.576 (arousal, valence) and lowered the arousal
of Hungarian to German; with a smaller learning rate the best alone had reached 0.597 and 0.592. So take these scores as optimistic.

**Two recordings of one conversation** hear the same sound: the traces of sound repeat in pairs. The seven folds are of recordings,
as agreed for this benchmark, so the partner of a tested recording may be among the learned ones. The cultures share none.

**Not a peer.** The published figure for this kind of fusion on Devel, an SVR that was *trained and scored on the same
recordings*, is 0.614 for arousal and 0.615 for valence. It is what not to do, and no row here is comparable with it.
""",
}

FAIRNESS = """
## What these data can and cannot say

Calibration and recall by class are above. FER+ consists of pictures from web searches of 2013. Nobody recorded who is in them,
how old they are, where they live or what they felt. Its raters judged one face each, and disagree on most. Contempt, disgust and
fear are rare, and their recall is that of classes hardly seen, so an average over classes (UAR) says more than accuracy. RAVDESS
is acted by North American English speakers of about the same age. The takes are one man's: their intervals are about his takes
and say nothing about other people. No groups of people can be compared on any of these data, so no claim of fairness is made,
and none should be inferred from the averages. An expression is not a feeling: nothing here measures what a person feels, and
the runs are not for decisions about people.
"""

PAPER = """
## The paper's own rows

These were not run here: AffectNet, Google FEC and RECOLA need licences, and FaceNet's and VGGish's weights were not available.
Hardware and time are estimates: the teacher sees 15 million pictures in 58,429 steps; a v5e-8 processes at most 65,000 per
second (`docs/cloud_tpu.md`), two 16 GB GPUs perhaps a thousand.

| row | the paper's figure | config | expected hardware and time | here |
|---|---|---|---|---|
| AffectNet, 8 classes, teacher | 61.3 % (second hand) | `configs/paper/teacher.py` | v5e-8, within the hour; two GPUs, 4 hours | not run here |
| AffectNet, 8 classes, student | 61.6 % | `configs/paper/student.py` | twice the teacher's | not run here |
| AffectNet, 7 classes, student | 65.4 % | the same with `--config.model.num_classes=7` | twice the teacher's | not run here |
| FEC, triplet accuracy | no certain figure | `configs/paper/student.py` | minutes | not run here |
| RECOLA, valence and arousal | no certain figure | `configs/paper/audio.py`, `configs/paper/fusion.py` | one GPU, hours | not run here |

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
