"""The notes of the templates of songs from text."""

# ruff: noqa: E501, because wide characters count twice
from __future__ import annotations

from .common_notes import REAL

SONG_NOTES: dict[str, dict[str, list[str]]] = {
    "text": {
        "en": [
            "Write caption and lyrics, press **Run**, and listen in *{Save Song}*. The file lies in ComfyUI's folder "
            "*output/audio*.",
            REAL["en"],
            "**Live preview:** set *Live preview method* to *auto* in ComfyUI's settings, or start ComfyUI with "
            "**--preview-method auto**.",
        ],
        "zh": [
            "填写描述和歌词，点击**运行**，然后在*{Save Song}*中试听。文件位于 ComfyUI 的 *output/audio* 文件夹。",
            REAL["zh"],
            "**实时预览：** 在 ComfyUI 设置中将*实时预览*设为 *auto*，或用 **--preview-method auto** 启动 ComfyUI。",
        ],
        "ja": [
            "キャプションと歌詞を書いて**実行**を押し、*{Save Song}* で聴きます。ファイルは ComfyUI の *output/audio* フォルダにあります。",
            REAL["ja"],
            "**ライブプレビュー:** ComfyUI の設定で*ライブプレビューメソッド*を *auto* にするか、"
            "**--preview-method auto** を付けて ComfyUI を起動します。",
        ],
    },
    "real": {
        "en": [
            "**Run** downloads *comfy-turbo* (6.3 GB) once, then generates the song. Nothing downloads before you "
            "press Run.",
            "*{Download Model}* shows what is missing. For edits, *comfy-base* and *comfy-sft* are better. If they sound "
            "harsh, set *guidance_end* of *{Sample Song}* to 0.7.",
        ],
        "zh": [
            "点击**运行**后，先下载 *comfy-turbo*（6.3 GB，仅一次），再生成歌曲。点击运行之前不会下载任何文件。",
            "*{Download Model}*会显示缺少的文件。编辑歌曲时，*comfy-base* 和 *comfy-sft* 效果更好。声音刺耳时，"
            "把*{Sample Song}*的 *guidance_end* 设为 0.7。",
        ],
        "ja": [
            "**実行**を押すと *comfy-turbo*（6.3 GB）を一度だけダウンロードし、曲を生成します。実行する前には何もダウンロードしません。",
            "*{Download Model}* は不足しているファイルを示します。編集には *comfy-base* と *comfy-sft* が適しています。"
            "音が刺々しいときは、*{Sample Song}* の *guidance_end* を 0.7 にします。",
        ],
    },
    "files": {
        "en": [
            "The single files of ComfyUI's own ACE-Step 1.5, with the planner (5 Hz LM). If a file is missing, "
            "ComfyUI offers its download. GGUF files of acestep.cpp are in the same lists.",
            "*{Plan Song}* plans melody and structure. Another seed there gives another melody.",
        ],
        "zh": [
            "使用 ComfyUI 自带 ACE-Step 1.5 的单个文件和规划模型（5 Hz LM）。如果缺少文件，ComfyUI 会提示下载。"
            "acestep.cpp 的 GGUF 文件也在同样的列表里。",
            "*{Plan Song}*规划旋律和结构，更换其种子会得到另一段旋律。",
        ],
        "ja": [
            "ComfyUI 標準の ACE-Step 1.5 の単体ファイルとプランナー（5 Hz LM）を使います。足りないファイルは ComfyUI がダウンロードを提案します。"
            "acestep.cpp の GGUF ファイルも同じリストにあります。",
            "*{Plan Song}* はメロディーと構成を計画します。シードを変えると別のメロディーになります。",
        ],
    },
    "line": {
        "en": [
            "Write one line into *{Write Song}* and press **Run**. *{Edit Song}* shows the song; change what you like "
            "and run again.",
            "*source* in *{Edit Song}*: **input** takes the next written song, **edits** keeps yours.",
        ],
        "zh": [
            "在*{Write Song}*中写一句话，点击**运行**。*{Edit Song}*显示写好的歌曲；修改后再次运行即可。",
            "*{Edit Song}*的 *source*：**input** 采用新写的歌曲，**edits** 保留你的修改。",
        ],
        "ja": [
            "*{Write Song}* に一行書いて**実行**を押します。*{Edit Song}* に曲が表示されます。直したら、もう一度実行します。",
            "*{Edit Song}* の *source*: **input** は新しく書かれた曲を、**edits** は編集した曲を使います。",
        ],
    },
    "planned": {
        "en": [
            "*{Plan Song}* completes the metadata and generates audio codes: melody and structure.",
            "Another seed in *{Plan Song}* gives another melody; in *{Sample Song}*, another take of the same one.",
            "*{Save Audio Codes}* saves the plan. *{Load Audio Codes}* reads it from the input folder.",
        ],
        "zh": [
            "*{Plan Song}*补全元数据并生成音频代码，即旋律和结构。",
            "更换*{Plan Song}*的种子得到另一段旋律；更换*{Sample Song}*的种子得到同一旋律的另一个版本。",
            "*{Save Audio Codes}*保存规划，*{Load Audio Codes}*从输入文件夹读取。",
        ],
        "ja": [
            "*{Plan Song}* はメタデータを補い、メロディーと構成を表すオーディオコードを生成します。",
            "*{Plan Song}* のシードを変えると別のメロディーに、*{Sample Song}* のシードを変えると同じメロディーの別テイクになります。",
            "*{Save Audio Codes}* で計画を保存し、*{Load Audio Codes}* で input フォルダーから読み込みます。",
        ],
    },
    "takes": {
        "en": [
            "Takes 1 and 2 have the seeds 7 and 8. Take 3 is a retake, a variation of take 1: same seed, "
            "*retake_variance* above 0.",
            "Press ○ beside the best one in *{Compare Takes}* and run again: *{Save Song}* saves it.",
            "For more takes, raise *batch_size*.",
        ],
        "zh": [
            "第 1、2 个版本的种子是 7 和 8。第 3 个是第 1 个的重录变化：种子相同，重录变化（*retake_variance*）大于 0。",
            "在*{Compare Takes}*中点击最好版本旁的 ○，再次运行，*{Save Song}*就会保存它。",
            "增大批量大小可得到更多版本。",
        ],
        "ja": [
            "テイク 1 と 2 のシードは 7 と 8 です。テイク 3 はテイク 1 の変奏（リテイク）で、シードは同じ、*retake_variance* が 0 より大きくなっています。",
            "*{Compare Takes}* で最も良いテイクの横の ○ を押し、もう一度実行すると *{Save Song}* が保存します。",
            "テイクを増やすには *batch_size* を上げます。",
        ],
    },
    "songs": {
        "en": [
            "*{Batch Songs}* samples several songs of one duration at once, up to eight. Song 1 has *seed*, song 2 "
            "*seed* + 1.",
            "*{Save Song}* gives each song a file of its own.",
            REAL["en"],
        ],
        "zh": [
            "*{Batch Songs}*一次采样多首时长相同的歌曲，最多八首。第 1 首用 *seed*，第 2 首用 *seed* + 1。",
            "*{Save Song}*把每首歌存成单独的文件。",
            REAL["zh"],
        ],
        "ja": [
            "*{Batch Songs}* は同じ長さの曲を 8 曲まで一度にサンプリングします。1 曲目は *seed*、2 曲目は *seed* + 1 です。",
            "*{Save Song}* は 1 曲ごとに 1 つのファイルを保存します。",
            REAL["ja"],
        ],
    },
    "lora": {
        "en": [
            "*{Load LoRA}* makes any caption sound like bells here. Strength 1 is as trained; set 0 to compare.",
            "Put your own files or PEFT folders into *models/loras* and press R. They need the model that they were "
            "trained on, 2B or XL.",
        ],
        "zh": [
            "这里的*{Load LoRA}*让任何描述都变成钟琴。强度 1 为训练时的效果，设为 0 可作比较。",
            "把自己的文件或 PEFT 文件夹放入 *models/loras*，然后按 R。模型须与训练时相同：2B 或 XL。",
        ],
        "ja": [
            "ここでは *{Load LoRA}* がどのキャプションもベルの音にします。強さ 1 が学習したとおりです。0 にすると比べられます。",
            "自分のファイルや PEFT フォルダは *models/loras* に置き、R キーを押します。学習に使ったモデル（2B または XL）が必要です。",
        ],
    },
    "times": {
        "en": [
            "*{Lyric Times}* finds when each line is sung, and shows the lines that are missing and the times.",
            "*{Save Song}* writes them into the song for players, *{Save Lyrics}* into subtitles for video editors. Both lie "
            "in ComfyUI's folder *output/audio*.",
            "For a recording, write its lyrics into *{Song}* and connect *{Encode Audio}* to *latent*.",
            REAL["en"],
        ],
        "zh": [
            "*{Lyric Times}*找出每一句何时演唱，并显示漏唱的句子和时间。",
            "*{Save Song}*把它们写入歌曲，供播放器使用；*{Save Lyrics}*写成字幕，供视频编辑器使用。文件都在 ComfyUI 的 *output/audio* 文件夹中。",
            "如果是录音，把它的歌词写入*{Song}*，并把*{Encode Audio}*接到 Latent。",
            REAL["zh"],
        ],
        "ja": [
            "*{Lyric Times}* は各行がいつ歌われるかを調べ、抜けた行と時刻を表示します。",
            "*{Save Song}* はそれをプレーヤー用に曲へ、*{Save Lyrics}* は動画編集ソフト用に字幕へ書き込みます。どちらも ComfyUI の *output/audio* フォルダにあります。",
            "録音の場合は、その歌詞を *{Song}* に書き、*{Encode Audio}* を潜在表現につなぎます。",
            REAL["ja"],
        ],
    },
    "best": {
        "en": [
            "*{Sample Song}* makes four takes. *{Pick Best}* scores how well each one sings its lyrics, and passes on "
            "the best.",
            "Set *batch_size* to make more takes, and *keep* to hear more than one.",
            REAL["en"],
        ],
        "zh": [
            "*{Sample Song}*生成四个版本。*{Pick Best}*为每个版本唱歌词的好坏打分，只传出最好的。",
            "*batch_size* 设定生成几个版本，*keep* 设定保留几个。",
            REAL["zh"],
        ],
        "ja": [
            "*{Sample Song}* は 4 つのテイクを作ります。*{Pick Best}* は歌詞への忠実さを採点し、最も良いものを渡します。",
            "*batch_size* でテイクの数、*keep* で残す数を変えられます。",
            REAL["ja"],
        ],
    },
    "finish": {
        "en": [
            "*{Finish Song}* brings the song to the loudness of streaming services and shows the levels before and "
            "after.",
            "*{Save Song}* writes title, artist, lyrics and BPM for players, and the workflow: drop the saved file on "
            "the canvas, and this graph opens again.",
            "The file lies in ComfyUI's folder *output/audio*. *{Song Picture}* draws the song.",
        ],
        "zh": [
            "*{Finish Song}*把歌曲调到流媒体平台的响度，并显示处理前后的电平。",
            "*{Save Song}*写入标题、艺术家、歌词和 BPM，以及工作流：把保存的文件拖到画布上，即可再次打开此工作流。",
            "文件位于 ComfyUI 的 *output/audio* 文件夹。*{Song Picture}*画出这首歌。",
        ],
        "ja": [
            "*{Finish Song}* は曲を配信サービスのラウドネスに合わせ、処理前と処理後のレベルを表示します。",
            "*{Save Song}* はタイトル、アーティスト、歌詞、BPM とワークフローを書き込みます。保存したファイルをキャンバスにドロップすると、このワークフローが再び開きます。",
            "ファイルは ComfyUI の *output/audio* フォルダにあります。*{Song Picture}* が曲を画像にします。",
        ],
    },
    "choose": {
        "en": [
            "Three takes of a song. Press **Run**, play them in *{Compare Takes}*, switch with the numbers, and press ○ "
            "beside the best one.",
            "Run again: *{Save Song}* saves the kept take. The seed is fixed, so nothing is generated again.",
            REAL["en"],
        ],
        "zh": [
            "一首歌的三个版本。点击**运行**，在*{Compare Takes}*中播放，用数字切换，在最好的版本旁点 ○。",
            "再次运行，*{Save Song}*就会保存这一版。种子固定，因此不会重新生成。",
            REAL["zh"],
        ],
        "ja": [
            "1 曲の 3 つのテイクです。**実行**を押し、*{Compare Takes}* で再生して番号で切り替え、最も良いテイクの横の ○ を押します。",
            "もう一度実行すると、*{Save Song}* がそのテイクを保存します。シードは固定なので、再生成は起こりません。",
            REAL["ja"],
        ],
    },
    "train": {
        "en": [
            "**Run** trains a LoRA on the example song in a minute or two, and plays a new song with it.",
            "**Your own songs:** put ten or more into a folder of ComfyUI's input folder, a text file with a caption "
            "beside each, and write its name into *{Song Folder}*. *{Training Options}* can hold one out and stop in time.",
            "**Your model:** choose *base* or *turbo* twice, with 1000 steps and a learning rate of 0.0001.",
        ],
        "zh": [
            "点击**运行**，一两分钟内用示例歌曲训练一个 LoRA，并用它播放一首新歌。",
            "**使用自己的歌曲：** 把十首以上放入 ComfyUI 输入文件夹中的一个文件夹，每首旁放一个写有描述的文本文件，并在*{Song Folder}*中填写文件夹名。*{Training Options}*可以留出一首，适时停止。",
            "**使用自己的模型：** 两处都选择 *base* 或 *turbo*，步数 1000，学习率 0.0001。",
        ],
        "ja": [
            "**実行**を押すと、1、2 分でサンプルの曲から LoRA を学習し、それを使った新しい曲を再生します。",
            "**自分の曲を使う:** ComfyUI の入力フォルダの中のフォルダに 10 曲以上と、それぞれのキャプションのテキストファイルを置き、フォルダ名を *{Song Folder}* に書きます。*{Training Options}* で 1 曲を検証用にして、適切な所で止められます。",
            "**自分のモデルを使う:** 2 か所とも *base* か *turbo* を選び、ステップ数 1000、学習率 0.0001 にします。",
        ],
    },
    "ksampler": {
        "en": [
            "ComfyUI's own *{KSampler}*: the same seed gives the same song as *{Sample Song}*. *{Empty Song}* sets "
            "the duration.",
            "Set steps and cfg yourself: 8 and 1 for turbo and nano, 50 and 5 to 9 for base and sft.",
        ],
        "zh": [
            "使用 ComfyUI 自带的*{KSampler}*：相同种子得到与*{Sample Song}*相同的歌曲。*{Empty Song}*设定时长。",
            "步数和 cfg 需自行设置：turbo 和 nano 用 8 和 1，base 和 sft 用 50 和 5 至 9。",
        ],
        "ja": [
            "ComfyUI 標準の *{KSampler}* を使います。同じシードなら *{Sample Song}* と同じ曲になります。*{Empty Song}* が長さを決めます。",
            "ステップと cfg は自分で設定します。turbo と nano は 8 と 1、base と sft は 50 と 5～9 です。",
        ],
    },
}
